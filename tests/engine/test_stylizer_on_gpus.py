"""`Stylizer` on TensorRT and CUDA, over the doubles: photos and videos by way of the frame queue."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_models import landscape

from engine.backends.base import BackendOptions
from engine.backends.frames import FrameRenderer
from engine.backends.tensorrt import TensorRtBackend
from engine.builder import Builder
from engine.choice import candidates, choose_backend, open_backend
from engine.errors import BackendError, BuildCancelled, OutOfMemoryError, PlanError
from engine.spec import ModelSpec
from engine.tiling import TilePlan
from engine.trt.plan import PlanCache, PlanConfig, ShapeProfile
from stylize.api import Stylizer
from stylize.frame import Frame
from stylize.media.image.settings import ImageSettings
from stylize.photos.job import FolderJob, stylize_folder

pytestmark = pytest.mark.usefixtures("doubles")

HEIGHT, WIDTH = 148, 164
"""Of the frames: tiles of `TILE` overlap in both directions."""
TILE = 128


@pytest.fixture(autouse=True)
def openvino_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine's CPU is best at."""
    monkeypatch.setattr("engine.choice._why_not_mnn", lambda precision: "left out here")


@pytest.fixture
def folder(models: dict[str, Path]) -> Path:
    return models["light"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlanCache:
    monkeypatch.setenv("FIREWATCH_CACHE", str(tmp_path / "cache"))
    return PlanCache()


@pytest.fixture
def plan(folder: Path, cache: PlanCache) -> Path:
    """A plan whose largest tile is smaller than the frames."""
    profile = ShapeProfile.of_tile(ModelSpec.load(folder), TILE, TILE, 2)
    return Builder(folder, PlanConfig(profile=profile), cache=cache).build()[0]


@pytest.fixture
def stylizer(folder: Path, plan: Path) -> Iterator[Stylizer]:
    with Stylizer(model=str(folder), smoothing=0.2) as running:
        assert running.backend.name == "tensorrt"
        yield running


def clip(count: int = 9) -> list[Frame]:
    """Moving frames, one of them shown twice, with a cut."""
    order = [*range(count // 2), count // 2 - 1, *range(20, 20 + count - count // 2 - 1)]
    pictures = [landscape(HEIGHT, WIDTH, seed=n // 20)[:, ::-1].copy() for n in order]
    for n, picture in zip(order, pictures, strict=True):
        picture[: 8 + n % 20] = 200
    return [Frame(data=p, index=i, pts=Fraction(i, 10)) for i, p in enumerate(pictures)]


def tile_by_tile(backend: Any, image: Any, statistics: Any, spec: ModelSpec, tile: int = TILE) -> Any:
    """The slow reference: every tile is a call of its own, cut and put together by numpy."""
    padded = np.pad(image, ((0, -image.shape[0] % 4), (0, -image.shape[1] % 4), (0, 0)), "symmetric")
    height, width = padded.shape[:2]
    plan = TilePlan(
        height=height, width=width, tile_height=tile, tile_width=tile, halo=spec.halo, multiple=spec.multiple
    )
    assert len(plan.tiles) > 1
    whole = plan.apply(padded, lambda part: backend.render(part[None], statistics)[0])
    return whole[: image.shape[0], : image.shape[1]]


def statistics_seen(stylizer: Stylizer) -> list[Any]:
    seen: list[Any] = []
    real = stylizer.begin
    stylizer.begin = lambda image, s: seen.append(s) or real(image, s)  # type: ignore[method-assign, func-returns-value]
    return seen


def test_video_is_the_same_as_tile_by_tile(stylizer: Stylizer, doubles: Any) -> None:
    """Statistics of each frame its own, frames in order, each uploaded once, two under way."""
    frames = clip()
    seen = statistics_seen(stylizer)
    busy, sent = [], []
    real = TensorRtBackend.submit

    def submit(self: TensorRtBackend, *arguments: Any) -> None:
        before = doubles.cuda.copied_to_device
        real(self, *arguments)
        sent.append(doubles.cuda.copied_to_device - before)
        busy.append(len(self._busy))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TensorRtBackend, "submit", submit)
        out = list(stylizer.transform(10)(iter(frames), range(len(frames))))
    assert max(busy) == 2
    vectors = 2 * -(-4 * stylizer.spec.norm_channels // 256) * 256  # each begins at a multiple of 256 bytes
    assert sent == [HEIGHT * WIDTH * 3 + vectors] * 8
    assert [f.index for f in out] == list(range(9)) and [f.pts for f in out] == [f.pts for f in frames]
    assert len(seen) == 8  # one frame repeats the one before it
    assert len({float(s.shift.sum()) for s in seen}) == 8
    rendered = iter(seen)
    for i, (frame, result) in enumerate(zip(frames, out, strict=True)):
        if i == 0 or (frame.data != frames[i - 1].data).any():
            statistics = next(rendered)
        expected = tile_by_tile(stylizer.backend, frame.data, statistics, stylizer.spec)
        assert np.array_equal(result.data, expected)


def test_photos_are_the_same_as_tile_by_tile(stylizer: Stylizer) -> None:
    photo = landscape(HEIGHT - 1, WIDTH - 3, seed=3)
    statistics = stylizer.probe(photo)
    assert np.array_equal(stylizer.image(photo), tile_by_tile(stylizer.backend, photo, statistics, stylizer.spec))


def test_a_video_that_is_stopped_leaves_the_stylizer_usable(stylizer: Stylizer) -> None:
    frames = clip()
    photo = landscape(HEIGHT, WIDTH, seed=4)
    expected = stylizer.image(photo)
    for _ in range(3):
        video = stylizer.transform(10)(iter(frames), range(len(frames)))
        next(video)
        assert np.array_equal(stylizer.image(photo), expected), "between two frames of a video"
        video.close()  # type: ignore[attr-defined]
    assert np.array_equal(stylizer.image(photo), expected)


def test_videos_in_several_threads(stylizer: Stylizer) -> None:
    frames = clip()
    expected = [f.data for f in stylizer.transform(10)(iter(frames), range(len(frames)))]
    results: dict[int, Any] = {}

    def work(number: int) -> None:
        results[number] = [f.data for f in stylizer.transform(10)(iter(frames), range(len(frames)))]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(3):
        assert all(np.array_equal(a, b) for a, b in zip(results[number], expected, strict=True))


def test_several_gpus_share_the_frames(folder: Path, plan: Path, stylizer: Stylizer, doubles: Any) -> None:
    frames = clip()
    expected = [f.data for f in stylizer.transform(10)(iter(frames), range(len(frames)))]
    doubles.cuda.gpus = 3
    with Stylizer(model=str(folder), smoothing=0.2, gpus="2,1") as several:
        assert several.depth == 4 and several.key == stylizer.key
        doubles.cuda.executed.clear()
        out = list(several.transform(10)(iter(frames), range(len(frames))))
        assert {1, 2} == set(doubles.cuda.executed)
        share = doubles.cuda.executed.count(1) / len(doubles.cuda.executed)
        assert 0.25 < share < 0.6  # probes are all the first one's
    assert all(np.array_equal(a.data, b) for a, b in zip(out, expected, strict=True))


class Meeting:
    """A transform in which the first photos wait until as many are there as should be."""

    def __init__(self, transform: Any, expected: int) -> None:
        self.transform, self.expected = transform, expected
        self.inside = self.most = 0
        self.lock, self.all_there = threading.Lock(), threading.Event()

    def __call__(self, picture: Any) -> Any:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            if self.inside == self.expected:
                self.all_there.set()
        self.all_there.wait(20)
        result = self.transform(picture)
        with self.lock:
            self.inside -= 1
        return result


def test_several_gpus_share_the_photos_of_a_folder(folder: Path, plan: Path, doubles: Any, tmp_path: Path) -> None:
    import cv2

    doubles.cuda.gpus = 2
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(7):
        cv2.imwrite(str(photos / f"{i}.png"), landscape(HEIGHT, WIDTH + 4 * i, seed=i))
    (photos / "3.png").write_bytes(b"no photo")
    runs: dict[str, Any] = {}
    for name, at_once in (("0", 1), ("0,1", 2)):
        target = tmp_path / name
        with Stylizer(model=str(folder), gpus=name) as stylizer:
            image = Meeting(stylizer.image, at_once)
            doubles.cuda.executed.clear()
            job = FolderJob(source=photos, target=target, settings=ImageSettings(), transform_key="k")
            report = stylize_folder(job, image, at_once=at_once)
        assert image.most == at_once and set(doubles.cuda.executed) == set(range(at_once))
        assert [(Path(p.source).name, p.status) for p in report.photos] == [
            (f"{i}.png", "failed" if i == 3 else "done") for i in range(7)
        ]
        runs[name] = [cv2.imread(str(target / f"{i}.png")) for i in range(7) if i != 3]
    assert all(np.array_equal(a, b) for a, b in zip(*runs.values(), strict=True))


def test_tiles_follow_the_plan(stylizer: Stylizer, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    halo, whole = stylizer.spec.halo, stylizer.tile_plan(TILE, TILE)
    assert len(whole.tiles) == 1
    ((height, width),) = {(t.padded.height, t.padded.width) for t in stylizer.tile_plan(TILE, 400).tiles}
    assert height == TILE and width <= TILE
    smaller = stylizer.tile_plan(400, 400, limit=120 * 120)
    ((height, width),) = {(t.padded.height, t.padded.width) for t in smaller.tiles}
    assert height * width <= 120 * 120
    with pytest.raises(ValueError, match="smaller than twice the halo"):
        stylizer.tile_plan(400, 400, limit=(2 * halo) ** 2)
    with Stylizer(model=str(folder), tile=300) as large, Stylizer(model=str(folder), tile=116) as small:
        assert large.tile_plan(400, 400) == stylizer.tile_plan(400, 400)
        assert small.tile_plan(400, 400).tile_height <= 116


def test_memory_runs_out_in_a_video(stylizer: Stylizer, doubles: Any, caplog: pytest.LogCaptureFixture) -> None:
    frames = clip()
    expected = [f.data for f in stylizer.transform(10)(iter(frames), range(len(frames)))]
    usual = stylizer.tile_plan(HEIGHT, WIDTH)
    for lane in stylizer.backend._lanes:  # type: ignore[attr-defined]
        with stylizer.backend._device.current():  # type: ignore[attr-defined]
            for buffer in (lane.input, lane.output, lane.scratch):
                buffer.free()
    # Room for the two lanes with somewhat smaller tiles, one at a time.
    tile = (usual.tile_height - 4) * usual.tile_width * 3 * (1 + 1 + doubles.trt.scratch_per_pixel)
    doubles.cuda.limit = doubles.cuda.used() + 2 * tile
    out = [f.data for f in stylizer.transform(10)(iter(frames), range(len(frames)))]
    assert "going on with smaller tiles" in caplog.text
    for found, wanted in zip(out, expected, strict=True):
        assert np.abs(found.astype(int) - wanted).max() <= 8  # tiles of another size, in float16
    doubles.cuda.limit = 1
    with pytest.raises(OutOfMemoryError, match="choose a smaller --tile"):
        stylizer.image(landscape(300, 300))


def test_a_plan_whose_tiles_are_all_halo(folder: Path, cache: PlanCache) -> None:
    side = 2 * ModelSpec.load(folder).halo
    profile = ShapeProfile.of_tile(ModelSpec.load(folder), side, side, 1)
    Builder(folder, PlanConfig(profile=profile), cache=cache).build()
    with Stylizer(model=str(folder)) as stylizer:
        assert stylizer.image(landscape(side, side - 3)).shape == (side, side - 3, 3)
        with pytest.raises(
            PlanError, match=rf"tiles of up to {side}x{side}, light needs sides of \d+: build-engine --model"
        ):
            stylizer.image(landscape(100, 100))


def test_pictures_below_the_smallest_tile(folder: Path, cache: PlanCache) -> None:
    profile = ShapeProfile(min=(1, 96, 96), opt=(1, 96, 96), max=(1, 128, 128))
    Builder(folder, PlanConfig(profile=profile), cache=cache).build()
    with (
        Stylizer(model=str(folder)) as stylizer,
        pytest.raises(PlanError, match=r"tiles from 96x96 up, got 64x60: .*build-engine --tile 128x128"),
    ):
        stylizer.image(landscape(64, 60))


# --- which GPUs, which plan


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gpus": "0,0"}, "each of them once, got '0,0'"),
        ({"gpus": "one"}, "gpus are numbers such as 0,1"),
        ({"gpus": ""}, "gpus are numbers such as 0,1"),
        ({"gpus": "0,1", "backend": "openvino"}, "leave out backend openvino or gpus"),
        ({"gpus": "0,1", "backend": "mnn"}, "leave out backend mnn or gpus"),
        ({"gpus": "0,1", "device": "cuda:0"}, "leave out device or gpus"),
        ({"plan": "plan", "backend": "torch"}, "a plan is run by backend tensorrt, got backend torch"),
    ],
)
def test_settings_that_contradict(folder: Path, values: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Stylizer(model=str(folder), **values)


@pytest.mark.parametrize("backend", ["tensorrt", "auto"])
def test_a_gpu_that_does_not_exist(folder: Path, plan: Path, doubles: Any, backend: str) -> None:
    doubles.cuda.gpus = 2
    with pytest.raises(BackendError, match="there is no GPU 5: this machine has 2"):
        Stylizer(model=str(folder), backend=backend, gpus="1,5").__enter__()
    assert not doubles.cuda.live, "what the first one took is given back"


def test_gpus_need_a_gpu(folder: Path, doubles: Any) -> None:
    doubles.cuda.gpus = 0
    with pytest.raises(BackendError, match=r"no backend for device 'cuda.*' here \(tensorrt: .*no CUDA-capable device"):
        Stylizer(model=str(folder), gpus="0,1").__enter__()


def test_a_named_plan(folder: Path, cache: PlanCache, tmp_path: Path) -> None:
    profile = ShapeProfile.of_tile(ModelSpec.load(folder), TILE, TILE, 1)
    own, _ = Builder(folder, PlanConfig(profile=profile), cache=cache).build(output=tmp_path / "own")
    with Stylizer(model=str(folder), plan=str(own)) as stylizer:
        assert stylizer.backend.plan == own  # type: ignore[attr-defined]
        assert stylizer.image(landscape(64, 64)).shape == (64, 64, 3)
    (own / "render.plan").write_bytes(b"plan")
    with pytest.raises(PlanError, match="missing or damaged"):  # a plan that was named is not passed over
        Stylizer(model=str(folder), plan=str(own)).__enter__()


def test_a_video_s_size_reaches_the_plan(folder: Path, cache: PlanCache) -> None:
    """At the size at which the network works, filled up to what it takes."""
    multiple = ModelSpec.load(folder).multiple
    padded = [-(-side // multiple) * multiple for side in (98, 131)]
    with Stylizer(model=str(folder), frame=(98, 131)) as stylizer:
        profile = stylizer.backend.record.config.profile  # type: ignore[attr-defined]
        assert profile == ShapeProfile.fixed(*padded)
        assert stylizer.image(landscape(98, 131)).shape == (98, 131, 3)
        assert stylizer.backend.record.config.profile.is_fixed  # type: ignore[attr-defined]


# --- what auto does


def names(device: str | None = None) -> list[str]:
    return [name for name, _ in candidates(device)]


def test_candidates_by_device(doubles: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr("engine.choice.gpu_in_sight", lambda: True)
    assert names() == ["tensorrt", "openvino"] and names("cuda:1") == ["tensorrt"] and names("cpu") == ["openvino"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA Double 4090")
    assert names() == ["tensorrt", "torch", "openvino"] and names("cuda") == ["tensorrt", "torch"]
    doubles.cuda.gpus = 0
    chosen, reason = choose_backend()
    assert chosen == "torch" and "NVIDIA Double 4090; not tensorrt: " in reason and "no CUDA-capable" in reason
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert names("mps") == ["torch"] and names()[0] == "torch"


def test_auto_goes_on_when_a_plan_cannot_be_built(folder: Path, cache: PlanCache, doubles: Any, caplog: Any) -> None:
    caplog.set_level("INFO")
    doubles.trt.build_fails = "no kernel for conv_3"
    with open_backend(folder, options=BackendOptions(threads=1)) as backend:
        assert backend.name == "openvino"
        assert backend.description.startswith("OpenVINO on")
    told = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "no TensorRT plan of light" in told[0].message
    assert told[-1].message == (
        "backend tensorrt does not work here: TensorRT cannot build the probe plan: no kernel for conv_3. "
        "Going on with openvino"
    )
    assert "backend openvino: " in caplog.records[-1].message
    assert not doubles.cuda.live
    with pytest.raises(PlanError, match="no kernel"):  # what was named is not replaced
        open_backend(folder, name="tensorrt").__enter__()


def test_auto_says_that_the_model_was_chosen_for_a_gpu(cache: PlanCache, doubles: Any, caplog: Any) -> None:
    doubles.trt.start = False
    with Stylizer(video=True, threads=1) as stylizer:
        assert stylizer.backend.name == "openvino" and stylizer.spec.name == "full"
    assert "--model light is quicker" in caplog.text


def test_auto_stops_when_the_build_is_stopped(folder: Path, cache: PlanCache, monkeypatch: Any) -> None:
    monkeypatch.setattr(Builder, "_build_into", lambda self, *_: (_ for _ in ()).throw(BuildCancelled("stopped")))
    with pytest.raises(BuildCancelled):
        open_backend(folder).__enter__()


def test_auto_is_opened_again(folder: Path, plan: Path, doubles: Any) -> None:
    opener = open_backend(folder)
    for _ in range(2):
        with opener as backend:
            backend.probe(landscape(32, 32)[None], np.ones(2, np.float32) / 2)
            assert backend.name == "tensorrt" and doubles.cuda.live
        assert not doubles.cuda.live


# --- the queue itself


class Failing:
    """A backend whose second frame fails on the way."""

    name, depth = "failing", 2

    def __init__(self) -> None:
        self.waiting: list[Any] = []
        self.count = 0

    def submit(self, frame: Any, statistics: Any, windows: Any) -> None:
        self.waiting.append(frame)

    def collect(self) -> Any:
        self.count += 1
        frame = self.waiting.pop(0)
        if self.count == 2:
            raise BackendError("the GPU fell off the bus")
        return frame


def test_an_error_reaches_whoever_asks_for_that_frame() -> None:
    renderer = FrameRenderer([Failing()])  # type: ignore[list-item]
    frames = [np.full((8, 8, 3), i, np.uint8) for i in range(4)]
    pending = [renderer.submit(f, None, lambda size, limit: TilePlan.whole(*size).tiles) for f in frames]  # type: ignore[arg-type]
    assert pending[0].done and pending[1].done and not pending[3].done, "later ones took the places of the first"
    assert [p.result()[0, 0, 0] for p in (pending[0], pending[3], pending[2])] == [0, 3, 2]
    for _ in range(2):
        with pytest.raises(BackendError, match="fell off the bus"):
            pending[1].result()
