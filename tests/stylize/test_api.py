"""The programming interface, as its documentation shows it."""

import doctest

import numpy as np
import pytest

import stylize.pipeline
from stylize import Stylizer
from stylize.errors import OutputError


def test_examples_in_docstrings_run():
    result = doctest.testmod(stylize.pipeline)
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
