"""A real Ray cluster of two workers, one of which is killed in the middle: the result is that of one machine."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media import decode, make_clip
from PIL import Image

from stylize import __version__
from stylize.api import Stylizer
from stylize.distributed.photos import stylize_folder_on_cluster
from stylize.distributed.pool import Pool, Work, check_address, open_pool
from stylize.distributed.shard import segment_store
from stylize.distributed.videos import run_on_cluster
from stylize.distributed.worker import ClusterWorker, Failed, PhotoDone
from stylize.errors import ClusterError
from stylize.media.image.settings import ImageSettings
from stylize.media.video.settings import VideoSettings
from stylize.photos.job import stylize_folder
from stylize.settings import StyleSettings
from stylize.video.batch import VideoTask, run_tasks

VIDEO = VideoSettings(segment_seconds=Fraction(1, 2), codec="lossless", preset="ultrafast")


pytestmark = pytest.mark.xdist_group("ray")  # one cluster, not one for each process of the tests


def start_cluster(ray) -> None:
    """Ray gives its own processes 30 seconds, which a busy machine may exceed."""
    for attempt in range(3):
        try:
            ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            return
        except Exception:
            ray.shutdown()
            if attempt == 2:
                raise


@pytest.fixture(scope="module")
def cluster():
    """Two cores to hand out; the address of the cluster."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'firewatch-stylizer[ray]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start_cluster(ray)
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield ray.get_runtime_context().gcs_address
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray leaves files and processes to the garbage collection
        ray.shutdown()
        gc.collect()


@pytest.fixture
def style(skip_model):
    return StyleSettings(model=str(skip_model), threads=1, smoothing=0.2)


def kill_a_busy_worker(pool: Pool) -> bool:
    """SIGKILL, as the kernel does when memory is short."""
    for place in pool._places:
        if place.facts and place.busy:
            os.kill(place.facts.pid, signal.SIGKILL)
            return True
    return False


def same(one: Path, other: Path) -> None:
    a, b = decode(one), decode(other)
    assert a.times == b.times
    assert [x.tobytes() for x in a.pictures] == [x.tobytes() for x in b.pictures]


@pytest.mark.slow
def test_videos_survive_a_killed_worker(cluster, tmp_path, style):
    first = make_clip(tmp_path / "first.mp4", frames=40, rate="10", audio=["sine=f=440"])
    second = make_clip(tmp_path / "second.mp4", frames=15, rate="10")
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"this is a diary")
    with Stylizer(settings=style, video=True) as stylizer:
        for source in (first, second):
            local = [VideoTask(source, tmp_path / f"local-{source.name}")]
            done = run_tasks(local, stylizer.transform_for, VIDEO, transform_key=stylizer.key)
            assert done[0].status == "done"

    killed, seen, told = [], [], []
    with open_pool("local", style, video=True, cpus=1) as pool:
        assert pool.capacity == 2

        def progress(task, state):
            seen.append((task.source.name, state.stage, state.done))
            if not killed and len(pool._places) == 2 and kill_a_busy_worker(pool):
                killed.append(True)

        tasks = [VideoTask(source, tmp_path / f"far-{source.name}") for source in (first, bad, second)]
        reports = run_on_cluster(tasks, VIDEO, pool, progress=progress, finished=told.append)
        assert killed and pool.lost == 1
    assert [report.status for report in reports] == ["done", "failed", "done"]
    assert [Path(report.source) for report in reports] == [first, bad, second]
    assert "bad.mp4" in reports[1].message and len(told) == 3
    frames = [done for name, stage, done in seen if name == "first.mp4" and stage == "frames"]
    assert frames == sorted(frames) and frames[-1] == 40
    for source in (first, second):
        same(tmp_path / f"local-{source.name}", tmp_path / f"far-{source.name}")
        assert not segment_store(tmp_path / f"far-{source.name}").folder.exists()


@pytest.mark.slow
def test_photos_survive_a_killed_worker(cluster, tmp_path, style, landscape):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    # Enough of them that both workers are there, and busy, before the first has done them all.
    names = ["a.jpg", "b.png", "c.webp", "sub/d.tif", *(f"e{n:02}.jpg" for n in range(20))]
    for number, name in enumerate(names):
        Image.fromarray(np.roll(landscape, 7 * number, axis=1)).save(folder / name)
    (folder / "bad.jpg").write_bytes(b"no photo")
    with Stylizer(settings=style) as stylizer:
        local = stylize_folder(folder, tmp_path / "local", stylizer.image, ImageSettings(), transform_key=stylizer.key)

    killed, counts = [], []
    with open_pool("local", style, video=False, cpus=1) as pool:

        def progress(report, done, total):
            counts.append((done, total))
            if not killed and len(pool._places) == 2 and kill_a_busy_worker(pool):
                killed.append(True)

        far = stylize_folder_on_cluster(folder, tmp_path / "far", ImageSettings(), pool, progress=progress)
        again = stylize_folder_on_cluster(folder, tmp_path / "far", ImageSettings(), pool)
        assert killed and pool.lost == 1
    assert counts == [(number, 25) for number in range(1, 26)]
    assert [(p.source, p.status, p.message) for p in far.photos] == [
        (p.source, p.status, p.message) for p in local.photos
    ]
    assert far.count("done") == 24 and far.count("failed") == 1
    for name in names:
        assert (tmp_path / "far" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    assert again.count("skipped") == 24


class Fragile(ClusterWorker):
    def photo(self, name, *_):
        if name == "crash":
            os._exit(1)
        return PhotoDone(data=b"", width=1, height=1, notes=()) if name != "bug" else 1 / 0


@pytest.mark.slow
def test_work_that_kills_its_workers_is_given_up(cluster, style, monkeypatch):
    monkeypatch.setattr("stylize.distributed.pool.ClusterWorker", Fragile)
    results = {}

    def work(name):
        return Work(method="photo", arguments=lambda: (name,), done=lambda result: results.update({name: result}))

    with open_pool("local", style, video=False, cpus=1) as pool:
        pool.run(iter([work(name) for name in ("one", "crash", "two", "bug", "three")]), threading.Event())
        assert pool.lost == 3 and pool.capacity == 2
    assert isinstance(results["crash"], Failed) and "lost 3 times" in results["crash"].message
    assert isinstance(results["bug"], Failed) and "division" in results["bug"].message
    assert all(isinstance(results[name], PhotoDone) for name in ("one", "two", "three"))


@pytest.mark.slow
def test_a_run_is_stopped_and_goes_on(cluster, tmp_path, style):
    source, target = make_clip(tmp_path / "in.mp4", frames=30, rate="10"), tmp_path / "out.mp4"
    stop = threading.Event()
    with open_pool("local", style, video=True, cpus=1) as pool:
        tasks = [VideoTask(source, target)]
        [report] = run_on_cluster(tasks, VIDEO, pool, progress=lambda *_: stop.set(), stop=stop)
        assert report.status == "interrupted" and "again" in report.message and not target.exists()
    with open_pool("local", style, video=True, cpus=2) as pool:
        assert pool.capacity == 1
        [report] = run_on_cluster(tasks, VIDEO, pool)
    assert report.status == "done" and report.frames_out == 30 and report.frames_resumed > 0


@pytest.mark.slow
def test_the_command_with_an_address(cluster, tmp_path, style, skip_model):
    """Another process joins the running cluster by its address."""
    source = make_clip(tmp_path / "in.mp4", frames=6, rate="10")
    options = ["--model", skip_model, "--threads", "1", "--ray", cluster, "--ray-cpus", "1", "--codec", "lossless"]
    command = [sys.executable, "-m", "stylize", "video", source, "-o", tmp_path / "out.mp4", *options]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "6 frames" in done.stdout and len(decode(tmp_path / "out.mp4").pictures) == 6


def test_what_the_cluster_cannot_give(cluster, style):
    with pytest.raises(ClusterError, match=r"64 cores .* --ray-cpus"), open_pool("local", style, video=True, cpus=64):
        pass


@pytest.mark.slow
def test_a_model_that_does_not_open_is_one_line(cluster, style):
    from dataclasses import replace

    unknown = replace(style, look="nosuch")
    with pytest.raises(ClusterError, match="nosuch"), open_pool("local", unknown, video=True, cpus=1):
        pass


def test_paths_that_the_worker_does_not_see(tmp_path, style):
    """Both the source and the job folder have to be there."""
    worker = ClusterWorker(style, video=True)
    assert worker.open().key
    gone = worker.segment(str(tmp_path / "in.mp4"), str(tmp_path / "out.mp4"), VIDEO, 0)
    assert isinstance(gone, Failed) and "in.mp4 is not to be seen" in gone.message and "mount" in gone.message
    source = make_clip(tmp_path / "in.mp4", frames=3)
    gone = worker.segment(str(source), str(tmp_path / "out.mp4"), VIDEO, 0)
    assert isinstance(gone, Failed) and "frames.json is not to be seen" in gone.message


@pytest.mark.parametrize("address", ["auto", "local", "ray://head:10001", "10.0.0.1:6379"])
def test_addresses(address):
    assert check_address(address) == address


@pytest.mark.parametrize("address", ["", "head", "http://head:1", "ray://", "head:x", "a b:1"])
def test_what_is_no_address(address):
    with pytest.raises(ValueError, match="auto, local, ray://"):
        check_address(address)


def stylize(*args, before="pass"):
    code = f"import sys; {before}; sys.argv[0] = 'stylize'; from stylize.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("command", ["video", "folder"])
def test_without_ray_the_command_that_installs_it_is_named(tmp_path, command):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    make_clip(tmp_path / "a.mp4", frames=2)
    done = stylize(command, tmp_path, "--ray", "local", before="sys.modules['ray'] = None")
    assert (
        done.returncode == 1 and done.stderr.count("\n") == 1 and "pip install 'firewatch-stylizer[ray]'" in done.stderr
    )


def test_a_cluster_that_does_not_answer(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed")
    make_clip(tmp_path / "a.mp4", frames=2)
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        done = stylize("video", tmp_path / "a.mp4", "--ray", address)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and address in done.stderr
    with contextlib.suppress(FileNotFoundError):
        (tmp_path / ".a.firewatch.mp4.stylize").rmdir()
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_options_that_do_not_go_together(tmp_path):
    make_clip(tmp_path / "a.mp4", frames=2)
    for extra in (["--shard", "1/2"], ["--dry-run"]):
        done = stylize("video", tmp_path / "a.mp4", "--ray", "local", *extra)
        assert done.returncode == 2 and "does not go with --ray" in done.stderr
    assert stylize("video", tmp_path / "a.mp4", "--ray", "nowhere").returncode == 2


class Upgraded(ClusterWorker):
    """After its first death the machine has another version of the program."""

    def open(self):
        from dataclasses import replace

        from stylize.distributed.worker import WorkerFacts

        mark = Path(os.environ["UPGRADED"])
        facts = WorkerFacts(version=__version__, key="k", description="", node="cabin", pid=os.getpid())
        facts = replace(facts, version="0.0.1") if mark.exists() else facts
        mark.touch()
        return facts

    def photo(self, *_):
        os._exit(1)


@pytest.mark.slow
def test_a_last_worker_replaced_by_one_of_another_version_ends_the_run(cluster, tmp_path, style, monkeypatch):

    mark = str(tmp_path / "upgraded")

    class Marked(Upgraded):
        def open(self):
            os.environ["UPGRADED"] = mark
            return super().open()

    monkeypatch.setattr("stylize.distributed.pool.ClusterWorker", Marked)
    works = [Work(method="photo", arguments=lambda: ("a",), done=lambda result: None) for _ in range(2)]
    late = threading.Event()
    timer = threading.Timer(120, late.set)
    timer.start()
    try:
        with (
            open_pool("local", style, video=False, cpus=2) as pool,
            pytest.raises(ClusterError, match=r"any more: cabin has stylizer 0\.0\.1.*install the same"),
        ):
            assert pool.capacity == 1
            pool.run(iter(works), late)
    finally:
        timer.cancel()
