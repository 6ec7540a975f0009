import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

SMALL = ["--sizes", "64x48", "--models", "random-tiny", "--filters", "4", "--blocks", "1", "--frames", "1"]
SMALL += ["--runs", "1", "--length", "3", "--matrix", "64", "--budget", "0.1", "--threads", "1"]


def bench(*args):
    command = [sys.executable, str(SCRIPTS / "bench.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_all_parts_in_one_run(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    from bench_models import CONFIGS

    from engine.program.architecture import Program

    done = bench(*SMALL, "--json", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr + done.stdout
    result = json.loads((tmp_path / "b.json").read_text())
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == [
        "command random-tiny",
        "feed",
        "feed, encoded",
        "engine random-tiny mnn",
        "engine random-tiny openvino",
        "engine random-tiny torch",
        "onnxruntime random-tiny",
        "peer ngf 4",
    ]
    for row in rows.values():
        assert row["size"] == "64x48" and row["runs"] == 1
        assert row["wall"] > 0 and row["cpu"] > 0 and row["fps"] == pytest.approx(1 / row["wall"])
        assert 20e6 < row["memory"] < 8e9
    flops = Program.of({**CONFIGS["random-tiny"]}).flops(48, 64)
    assert rows["engine random-tiny openvino"]["flops"] == flops
    assert rows["command random-tiny"]["frames"] == 3
    assert rows["feed"]["frames"] == rows["feed, encoded"]["frames"] == 3 and rows["feed"]["flops"] == 0
    assert {"decode", "probe", "render", "transform", "encode", "startup"} <= set(rows["command random-tiny"])
    assert {"probe", "render"} <= set(rows["engine random-tiny torch"])
    assert result["limit"]["torch convolution fp32"]["cpu"] > 0
    ratio = result["ratios"]["engine random-tiny torch over peer ngf 4, 64x48"]["wall"]
    assert ratio == pytest.approx(rows["peer ngf 4"]["wall"] / rows["engine random-tiny torch"]["wall"])
    assert all(name in done.stdout for name in rows)


def test_another_checkout_takes_turns(tmp_path):
    done = bench(*SMALL, "--parts", "feed", "--against", SCRIPTS.parent, "--json", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr + done.stdout
    names = [row["name"] for row in json.loads((tmp_path / "b.json").read_text())["rows"]]
    assert names == ["feed", "feed of the other", "feed, encoded", "feed, encoded of the other"]


def test_a_case_that_cannot_run_is_shown_and_does_not_stop_the_rest(tmp_path):
    done = bench(*SMALL, "--parts", "engine", "--backends", "abacus,openvino", "--json", tmp_path / "b.json")
    assert done.returncode == 1
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert "unknown backend 'abacus'" in rows[0]["error"] and "wall" not in rows[0]
    assert rows[1]["wall"] > 0


@pytest.mark.parametrize(
    ("args", "message"),
    [(["--models", "nowhere"], "no model 'nowhere'"), (["--parts", "luck"], "unknown part 'luck'")],
)
def test_wrong_use_says_what_there_is(args, message):
    done = bench(*args)
    assert done.returncode != 0 and message in done.stderr and "Traceback" not in done.stderr


def test_the_peer_has_the_network_it_is_compared_by():
    torch = pytest.importorskip("torch")
    from bench_models import peer_flops
    from bench_peer import generator

    net = generator(32)
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(2.85e6, rel=0.01)
    macs = 0

    def count(module, inputs, output):
        nonlocal macs
        kernel = module.kernel_size[0] * module.kernel_size[1]
        transposed = isinstance(module, torch.nn.ConvTranspose2d)
        pixels = (inputs[0] if transposed else output)[0, 0].numel()
        macs += pixels * kernel * module.in_channels * module.out_channels

    for module in net.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            module.register_forward_hook(count)
    with torch.inference_mode():
        assert net(torch.zeros(1, 3, 64, 96)).shape == (1, 3, 64, 96)
    assert 2 * macs == peer_flops(32, 64, 96)


def test_peak_memory_covers_child_processes():
    from bench import watched

    inner = "x = bytearray(80 << 20); import time; time.sleep(0.5)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    done = watched([sys.executable, "-c", outer])
    assert done["memory"] > 80 << 20 and done["wall"] > 0.5
