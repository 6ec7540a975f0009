"""Nothing is sent: every Python process of a run is watched for sockets, and the home folder for files."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from media import make_clip

ROOT = Path(__file__).parents[2]

WATCH = """
import os, sys
def hook(event, args):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.connect", "socket.sendto"):
        place = args[0] if event in ("socket.getaddrinfo", "socket.gethostbyname") else args[1]
        if event in ("socket.connect", "socket.sendto") and not isinstance(place, tuple):
            return  # a socket of this machine
        with open(os.environ["WATCHED"], "a") as file:
            file.write(f"{event} {place}\\n")
        raise OSError("no network here")
sys.addaudithook(hook)
with open(os.environ["WATCHED"] + ".seen", "a") as file:
    file.write("1\\n")
"""


@pytest.fixture
def watched(tmp_path):
    """Run Python with a new home folder; returns what it asked the network for, and the files in its home."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(WATCH)
    home, log = tmp_path / "home", tmp_path / "asked"
    home.mkdir()
    path = os.pathsep.join([str(tmp_path / "hook"), str(ROOT)])
    environment = {name: value for name, value in os.environ.items() if name not in {"CI", "XDG_DATA_HOME"}}
    environment |= {"HOME": str(home), "USERPROFILE": str(home), "PYTHONPATH": path, "WATCHED": str(log)}

    def run(*args):
        done = subprocess.run(
            [sys.executable, *map(str, args)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert Path(f"{log}.seen").exists()
        asked = log.read_text().splitlines() if log.exists() else []
        return asked, sorted(str(file.relative_to(home)) for file in home.rglob("*"))

    return run


def test_the_watch_sees_what_is_sent(watched):
    asked, _ = watched("-c", "import urllib.request as u\ntry: u.urlopen('http://example.org')\nexcept OSError: pass")
    assert asked and "example.org" in asked[0]


@pytest.mark.parametrize("command", ["image", "folder", "video", "doctor"])
def test_a_run_asks_nobody_and_leaves_nothing_at_home(watched, tmp_path, skip_model, landscape, command):
    pytest.importorskip("openvino")
    photos = tmp_path / "photos"
    photos.mkdir()
    cv2.imwrite(str(photos / "a.png"), landscape)
    model = ("--model", skip_model, "--backend", "openvino")
    given = {
        "image": ("image", photos / "a.png", "-o", tmp_path / "o.png", *model),
        "folder": ("folder", photos, *model),
        "video": ("video", make_clip(tmp_path / "in.mp4", frames=3), "-o", tmp_path / "o.mp4", *model),
        "doctor": ("doctor",),
    }[command]
    asked, files = watched("-m", "stylize", *given)
    assert asked == []
    assert not [name for name in files if name.startswith("intel")]


def test_openvino_is_imported_without_telemetry(watched):
    pytest.importorskip("openvino")
    code = """
        import sys, threading
        from engine.openvino_module import import_openvino
        threads = [threading.Thread(target=import_openvino) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        import_openvino().Core()
        assert "openvino_telemetry" not in sys.modules
    """
    asked, files = watched("-c", "\n".join(line[8:] for line in code.splitlines()))
    assert asked == [] and files == []


def test_no_other_module_imports_openvino_itself():
    """A plain import, anywhere, would bring the telemetry back."""
    import ast

    for package in ("stylize", "engine", "training", "scripts"):
        for path in (ROOT / package).rglob("*.py"):
            if path.name == "openvino_module.py":
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            typing = {
                inner
                for node in ast.walk(tree)
                if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
                for inner in ast.walk(node)
            }
            for node in ast.walk(tree):
                if node in typing:
                    continue
                if isinstance(node, ast.Import):
                    assert not any(alias.name.split(".")[0] == "openvino" for alias in node.names), path
                if isinstance(node, ast.ImportFrom) and not node.level:
                    assert (node.module or "").split(".")[0] != "openvino", path


@pytest.mark.slow
def test_a_cluster_of_our_own_reports_to_nobody():
    pytest.importorskip("ray")
    code = (
        "import os, socket\n"
        "from stylize.distributed.pool import _connect\n"
        "import ray\n"
        "_connect(ray, 'local')\n"
        "from ray._common.usage import usage_lib\n"
        "assert not usage_lib.usage_stats_enabled()\n"
        "ray.shutdown()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RAY_USAGE_STATS_ENABLED"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_telemetry_is_there_to_be_hidden():
    """Where OpenVINO comes without it one day, these tests prove nothing any more."""
    pytest.importorskip("openvino")
    assert importlib.util.find_spec("openvino_telemetry") is not None
