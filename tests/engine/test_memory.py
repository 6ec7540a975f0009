import psutil
import pytest

from engine.memory import bytes_per_pixel, default_tile, gpu_tile
from engine.program.architecture import Program
from engine.spec import ModelSpec

FULL = {"architecture": "resnet9-skip", "ngf": 32, "n_blocks": 9, "n_downsampling": 2, "upsample": "resize"}
PLAIN = {**FULL, "architecture": "resnet9", "upsample": "transposed"}
LIGHT = {**FULL, "architecture": "light", "ngf": 48, "n_blocks": 6}


@pytest.mark.parametrize(("config", "measured"), [(FULL, 390), (PLAIN, 262), (LIGHT, 70)])
def test_the_count_agrees_with_what_openvino_was_seen_to_take(config, measured):
    """docs/performance.md has the measurements; the reserve covers what the count leaves out."""
    count = bytes_per_pixel(Program.of(config))
    assert measured / 1.1 < count < measured * 1.3


def test_memory_grows_with_the_filters():
    assert bytes_per_pixel(Program.of({**FULL, "ngf": 64})) == pytest.approx(
        2 * bytes_per_pixel(Program.of(FULL)), rel=0.05
    )


def test_a_picture_is_cut_when_it_does_not_fit(monkeypatch):
    spec = ModelSpec(name="full", config={**FULL, "looks": ["auto"]}, looks=("auto",))

    def tile(gigabytes, height, width):
        memory = psutil.virtual_memory()._replace(available=int(gigabytes * 2**30))
        monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
        return default_tile(spec, height, width)

    assert tile(8, 1080, 1920) == 0
    assert tile(64, 6000, 8000) > 1000
    small = tile(1, 1080, 1920)
    assert 4 * spec.halo <= small < 1080 and small % spec.multiple == 0
    assert tile(0.001, 1080, 1920) == 4 * spec.halo


def test_a_video_s_frames_are_whole_where_the_gpu_has_room():
    spec = ModelSpec(name="full", config={**FULL, "looks": ["auto"]}, looks=("auto",))

    def tile(gigabytes, frame, precision="fp16"):
        return gpu_tile(spec, frame, gigabytes << 30, precision=precision, at_once=2)

    assert tile(24, (2160, 3840)) == (2160, 3840) and tile(8, (1088, 1920)) == (1088, 1920)
    height, width = tile(8, (2160, 3840))
    assert 2 * height * width * bytes_per_pixel(spec.program) / 2 <= 0.6 * 8 * 2**30
    assert height * width > 1088 * 1920
    smaller = tile(8, (2160, 3840), "fp32")
    assert smaller[0] * smaller[1] < height * width
    with pytest.raises(ValueError, match="leaves nothing between two halos"):
        gpu_tile(spec, (2160, 3840), 1 << 20, precision="fp16", at_once=2)
