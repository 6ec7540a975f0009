"""The programming interface, as its documentation shows it."""

import doctest
import os
import re
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import stylize.api
from engine.spec import ModelSpec, look_weights
from stylize import Stylizer
from stylize.errors import OutputError
from stylize.media.image.settings import ImageSettings
from stylize.media.video.settings import VideoSettings
from stylize.settings import StyleSettings


def test_examples_in_docstrings_run():
    result = doctest.testmod(stylize.api)
    assert result.attempted >= 3 and result.failed == 0


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    av = pytest.importorskip("av")
    path = tmp_path_factory.mktemp("clip") / "walk.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for i in range(10):
            image = np.full((64, 96, 3), 40 + 10 * i, np.uint8)
            image[20:40, 4 * i : 4 * i + 30] = (200, 120, 60)
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def test_open_image_video_frames_close(clip, tmp_path, skip_model):
    av = pytest.importorskip("av")
    stylizer = Stylizer.open(str(skip_model), look="dusk", threads=1)
    try:
        frames = list(stylizer.frames(clip))
        assert [f.index for f in frames] == list(range(10))
        assert frames[3].data.shape == (64, 96, 3) and float(frames[3].pts) == pytest.approx(0.25)
        report = stylizer.video(clip, tmp_path / "out.mp4", crf=10, preset="ultrafast")
        assert (report.status, report.frames_out) == ("done", 10)
        with av.open(str(tmp_path / "out.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) == 10
        with pytest.raises(OutputError, match="exists already"):
            stylizer.video(clip, tmp_path / "out.mp4")
    finally:
        stylizer.close()


PAGE = Path(__file__).parents[2] / "docs" / "api.md"


def examples():
    return re.findall(r"(?s)```python\n(.*?)```", PAGE.read_text(encoding="utf-8"))


def test_examples_of_the_page_run(clip, tmp_path, monkeypatch, capsys):
    """In order and in one namespace, as the page says, on a small photo and a clip of ten frames."""
    from PIL import Image

    Image.fromarray(np.full((48, 64, 3), (90, 140, 200), np.uint8)).save(tmp_path / "lake.jpg")
    shutil.copyfile(clip, tmp_path / "hike.mp4")
    monkeypatch.chdir(tmp_path)
    names = {}
    assert len(examples()) >= 6
    for example in examples():
        exec(compile(example, str(PAGE), "exec"), names)
    out = capsys.readouterr().out
    assert (tmp_path / "firewatch.png").is_file() and "firewatch.mp4: 10 frames" in out
    for promised in re.findall(r"print\(error\)  # (.*?)(?: \.\.\.)?\n", PAGE.read_text(encoding="utf-8")):
        assert promised in out


SCRIPT = """
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from stylize import Frame, StyleSettings, Stylizer


def picture(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    with Stylizer(StyleSettings(model="light", look="dusk")) as stylizer:
        return stylizer.image(image)


def frames(name: str) -> Iterator[Frame]:
    stylizer = Stylizer.open("light", strength=0.5)
    yield from stylizer.frames(name)
    stylizer.close()


def seconds(name: str) -> float:
    return Stylizer.open("light").video(name, "out.mp4", crf=20).seconds
"""


def strict(script, folder):
    """What mypy says of a script outside of the project, with nothing of its configuration."""
    (folder / "script.py").write_text(script)
    (folder / "mypy.ini").write_text("[mypy]\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file=mypy.ini", "script.py"],
        capture_output=True, text=True, check=False, cwd=folder, env={**os.environ, "MYPYPATH": str(PAGE.parents[1])},
    )  # fmt: skip
    return done.stdout


@pytest.mark.slow
def test_a_script_passes_strict_type_checks(tmp_path):
    pytest.importorskip("mypy")
    assert "Success" in strict(SCRIPT, tmp_path)
    assert "Success" in strict("\n".join(examples()), tmp_path)
    wrong = SCRIPT.replace("stylizer.image(image)", "stylizer.image('lake.jpg')").replace(".seconds", ".fsp")
    found = strict(wrong, tmp_path)
    assert 'incompatible type "str"' in found and 'has no attribute "fsp"' in found


def test_the_package_says_that_it_is_typed():
    import stylize

    assert (Path(stylize.__file__).parent / "py.typed").is_file()
    assert set(stylize.__all__) <= set(dir(stylize)) and all(getattr(stylize, name) for name in stylize.__all__)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3)), "RGB uint8 .* got float64"),
        (np.zeros((4, 4), np.uint8), r"got uint8 \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        (Image.new("RGB", (8, 8)), r"a numpy array, got Image: .*np\.asarray"),
        ([[[0, 0, 0]]], "a numpy array, got list"),
    ],
)
def test_what_is_no_picture_is_refused(skip_model, image, message):
    with Stylizer.open(str(skip_model), threads=1) as stylizer, pytest.raises(ValueError, match=message):
        stylizer.image(image)


def test_it_is_opened_once_and_says_when_it_is_not(skip_model, monkeypatch):
    entered = []
    stylizer = Stylizer(model=str(skip_model), threads=1)
    whole = type(stylizer._open).__enter__
    monkeypatch.setattr(type(stylizer._open), "__enter__", lambda self: entered.append(1) or whole(self))
    picture = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match="not open"):
        stylizer.image(picture)
    with stylizer, stylizer as same:  # as with Stylizer.open(...) does
        assert same is stylizer and stylizer.image(picture).shape == picture.shape
    assert entered == [1]
    with pytest.raises(ValueError, match="not open"):
        stylizer.image(picture)
    stylizer.close()  # twice does no harm


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("strength", "1", "strength is a number, got '1'"),
        ("keep_color", None, "keep-color is a number, got None"),
        ("tile", 512.5, "tile is a whole number"),
        ("threads", True, "threads is a whole number, got True"),
        ("look", ["dusk"], r"look is a text, got \['dusk'\]"),
        ("detail", float("nan"), "detail is a number, got nan"),
    ],
)
def test_settings_of_another_type_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        StyleSettings(**{name: value})


@pytest.mark.parametrize(
    "wrong", [{"crf": "18"}, {"overwrite": "no"}, {"fps": "30"}, {"encoder_args": "-tune film"}, {"codec": 5}]
)
def test_settings_of_videos_likewise(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).replace("_", "-")):
        VideoSettings(**wrong)
    with pytest.raises(ValueError, match="quality is a whole number, got '90'"):
        ImageSettings(quality="90")
    assert VideoSettings(fps=30) == VideoSettings(fps=Fraction(30))


def test_numbers_of_numpy_and_paths_are_the_same_settings():
    given = StyleSettings(model=Path("a/b"), strength=np.float64(0.5), tile=np.int64(512), detail=1)
    same = StyleSettings(model="a/b", strength=0.5, tile=512, detail=1.0)
    assert given.key("m", "dusk") == same.key("m", "dusk")


def test_what_was_restyled_closes_with_the_stylizer(skip_model):
    picture = np.zeros((32, 32, 3), np.uint8)
    with Stylizer(model=str(skip_model), threads=1) as stylizer:
        other = stylizer.restyled(strength=0.5)
        assert other.image(picture).shape == picture.shape
    with pytest.raises(ValueError, match="not open"):
        other.image(picture)
    early = stylizer.restyled(strength=0.25)
    with stylizer:
        assert early.image(picture).shape == picture.shape


@pytest.mark.parametrize("amount", ["inf", "nan", "1e39", "x", "-1"])
def test_weights_of_looks_are_finite(skip_model, amount):
    look = ModelSpec.load(skip_model).looks[0]
    with pytest.raises(ValueError, match=r"weights? of (a look|looks)"):
        look_weights(ModelSpec.load(skip_model), f"{look}={amount}")
