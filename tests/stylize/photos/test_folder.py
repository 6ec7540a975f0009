"""Folder runs: the tree is mirrored, what is done is skipped, one bad photo stops nobody."""

import json
import os
import shutil
import threading
import time

import numpy as np
import pytest
from PIL import Image

from stylize.errors import InputError, OutputError, ResumeError
from stylize.media.image.read import read_image
from stylize.media.image.settings import ImageSettings
from stylize.photos import job as folder_job
from stylize.photos.dry_run import plan_folder
from stylize.photos.job import FolderJob, stylize_folder
from stylize.photos.scan import JOURNAL_NAME

PLAIN = ImageSettings()


def run(source, transform, target=None, settings=PLAIN, key="net", **more):
    more = {"target": target, "settings": settings, "transform_key": key, **more}
    return stylize_folder(FolderJob(source=source, **more), transform)


def statuses(report, root):
    return {os.path.relpath(photo.source, root): (photo.status, photo.reason) for photo in report.photos}


def test_the_tree_is_mirrored(tree, invert, contents):
    seen = []
    report = run(tree, invert, progress=lambda photo, count, total: seen.append((photo, count, total)))
    assert sorted(contents(tree / "stylized")) == [
        "a.jpg",
        "b.png",
        "c.WEBP",
        "one/d.tif",
        "one/two/e.bmp",
        "zwei/f.jpeg",
    ]
    assert report.complete and report.count("done") == 6 and report.ignored == {".txt": 1}
    assert [count for _, count, _ in seen] == [1, 2, 3, 4, 5, 6] and {total for *_, total in seen} == {6}
    assert [photo for photo, *_ in seen] == list(report.photos)
    assert np.array_equal(read_image(tree / "stylized/b.png").data, 255 - read_image(tree / "b.png").data)
    values = json.loads(json.dumps(report.as_dict()))
    assert values["done"] == 6 and values["photos"][0]["status"] == "done" and values["photos"][0]["width"] == 40


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_any_number_of_jobs_gives_the_same(tree, invert, contents, tmp_path, jobs):
    run(tree, invert, tmp_path / "wanted")
    report = run(tree, invert, tmp_path / "out", ImageSettings(jobs=jobs))
    assert report.complete and contents(tmp_path / "out") == contents(tmp_path / "wanted")


def test_a_second_run_does_nothing(tree, invert, contents):
    run(tree, invert)
    before = {path: path.stat().st_mtime_ns for path in (tree / "stylized").rglob("*.*") if path.is_file()}
    report = run(tree, lambda rgb: pytest.fail("transformed again"))
    assert set(statuses(report, tree).values()) == {("skipped", "up-to-date")}
    after = {path: path.stat().st_mtime_ns for path in before if path.suffix != ".lock"}
    assert all(before[path] == time_ns for path, time_ns in after.items())


def test_other_settings_are_redone_only_with_overwrite(tree, invert):
    run(tree, invert)
    report = run(tree, invert, key="other net")
    assert set(statuses(report, tree).values()) == {("skipped", "other-settings")}
    assert "--overwrite" in report.photos[0].message
    first = run(tree, np.array, settings=ImageSettings(overwrite=True), key="other net")
    again = run(tree, np.array, settings=ImageSettings(overwrite=True), key="other net")
    assert first.count("done") == 6 and again.count("skipped") == 6
    assert np.array_equal(read_image(tree / "stylized/b.png").data, read_image(tree / "b.png").data)


def test_changed_sources_and_results_are_noticed(tree, invert, gradient):
    run(tree, invert)
    Image.fromarray(gradient[::-1]).save(tree / "b.png")
    (tree / "stylized/a.jpg").write_bytes(b"retouched")
    (tree / "stylized/zwei/f.jpeg").unlink()
    os.utime(tree / "c.WEBP")  # another time, the same bytes
    report = run(tree, invert)
    found = statuses(report, tree)
    assert found["b.png"] == ("skipped", "source-changed") and found["a.jpg"] == ("skipped", "result-changed")
    assert found["zwei/f.jpeg"] == ("done", "") and found["c.WEBP"] == ("skipped", "up-to-date")
    assert (tree / "stylized/a.jpg").read_bytes() == b"retouched"
    redone = statuses(run(tree, invert, settings=ImageSettings(overwrite=True)), tree)
    assert redone["b.png"] == redone["a.jpg"] == ("done", "") and redone["one/d.tif"] == ("skipped", "up-to-date")


def test_a_strangers_file_is_not_replaced(tree, invert):
    (tree / "stylized").mkdir()
    (tree / "stylized/b.png").write_bytes(b"mine")
    assert statuses(run(tree, invert), tree)["b.png"] == ("skipped", "exists")
    assert (tree / "stylized/b.png").read_bytes() == b"mine"


def test_a_copied_folder_is_still_done(tree, invert, tmp_path):
    run(tree, invert)
    shutil.copytree(tree, tmp_path / "copy", copy_function=shutil.copyfile)
    assert run(tmp_path / "copy", invert).count("skipped") == 6


def test_bad_photos_do_not_stop_the_rest(tree, invert, contents):
    (tree / "0.jpg").write_text("no photo")
    (tree / "one/cut.png").write_bytes((tree / "b.png").read_bytes()[:80])
    (tree / "one/none.jpg").touch()
    report = run(tree, invert)
    assert report.count("failed") == 3 and report.count("done") == 6 and not report.complete
    assert "0.jpg" not in contents(tree / "stylized") and len(contents(tree / "stylized")) == 6
    assert all("\n" not in photo.message for photo in report.photos)


def test_a_transform_that_fails_on_one_photo(tree):
    calls = []

    def transform(rgb):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of\nmemory")
        return rgb

    report = run(tree, transform)
    assert report.count("done") == 5 and report.count("failed") == 1
    assert report.photos[1].message.endswith("RuntimeError: out of memory")


def test_formats_can_be_changed(tree, invert, contents):
    run(tree, invert, settings=ImageSettings(format="png"))
    assert sorted(contents(tree / "stylized")) == [
        "a.png",
        "b.png",
        "c.png",
        "one/d.png",
        "one/two/e.png",
        "zwei/f.png",
    ]


def test_formats_that_are_only_read(tmp_path, gradient, invert, contents):
    import pillow_heif

    pillow_heif.register_heif_opener()
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(gradient).save(source / "phone.HEIC")
    Image.fromarray(gradient).quantize(32).save(source / "old.gif")
    assert run(source, invert).complete
    assert sorted(contents(source / "stylized")) == ["old.png", "phone.jpg"]


def test_no_recursion_on_request(tree, invert, contents):
    run(tree, invert, settings=ImageSettings(recursive=False))
    assert sorted(contents(tree / "stylized")) == ["a.jpg", "b.png", "c.WEBP"]


def test_outputs_are_never_inputs(tree, invert):
    run(tree, invert)
    run(tree, invert, tree / "one" / "elsewhere")
    report = run(tree, invert, tree / "third")
    assert report.count("done") == 6
    assert "one/two/e.bmp" in statuses(report, tree) and len(report.photos) == 6
    assert run(tree / "third", invert).count("done") == 6  # asked for by name, a folder of results is a source


def test_hidden_files_and_parts_are_passed_over(tree, invert, contents):
    for name in (".hidden.jpg", "._a.jpg", ".thumbs/t.jpg", "b.png.part"):
        (tree / name).parent.mkdir(exist_ok=True)
        shutil.copy(tree / "a.jpg", tree / name)
    report = run(tree, invert)
    assert report.count("done") == 6 and len(contents(tree / "stylized")) == 6


def test_sheets_of_preview_and_compare_are_passed_over(tree, invert, contents):
    for name in ("a.preview.png", "a.compare.png"):
        shutil.copy(tree / "b.png", tree / name)
    report = run(tree, invert)
    assert report.count("done") == 6 and report.ignored[".preview.png"] == 1
    assert not [name for name in contents(tree / "stylized") if "preview" in name or "compare" in name]


def test_times_are_kept(tree, invert):
    os.utime(tree / "b.png", (1_000_000_000, 1_000_000_001))
    run(tree, invert, settings=ImageSettings(keep_times=True))
    assert (tree / "stylized/b.png").stat().st_mtime == 1_000_000_001
    assert run(tree, invert, settings=ImageSettings(keep_times=True)).count("skipped") == 6


def test_links_are_followed_once(tree, invert, contents, tmp_path, gradient):
    other = tmp_path / "other"
    other.mkdir()
    Image.fromarray(gradient).save(other / "g.png")
    (tree / "0link").symlink_to(other, target_is_directory=True)
    (tree / "one/loop").symlink_to(tree, target_is_directory=True)
    (tree / "0one").symlink_to(tree / "one", target_is_directory=True)
    (tree / "0first.jpg").symlink_to("a.jpg")
    (tree / "gone.jpg").symlink_to("nowhere.jpg")
    (tree / "again.png").symlink_to(other / "g.png")
    found = statuses(run(tree, invert), tree)
    assert sorted(contents(tree / "stylized")) == [
        "0link/g.png",
        "a.jpg",
        "b.png",
        "c.WEBP",
        "one/d.tif",
        "one/two/e.bmp",
        "zwei/f.jpeg",
    ]
    assert found["0first.jpg"] == found["again.png"] == ("skipped", "link")
    assert found["gone.jpg"] == ("failed", "unreadable")


def test_two_sources_of_one_name(tmp_path, gradient, invert, contents):
    import pillow_heif

    pillow_heif.register_heif_opener()
    source = tmp_path / "in"
    (source / "Sub").mkdir(parents=True)
    (source / "sub").mkdir()
    for number, name in enumerate(["a.heic", "a.jpg", "A.JPG", "a.heif", "Sub/x.png", "sub/x.png"]):
        kind = "HEIF" if "he" in name else None
        Image.fromarray(np.full((8, 8, 3), 20 * number, np.uint8)).save(source / name, format=kind)
    wanted = ["A.JPG", "Sub/x.png", "a-2.jpg", "a.heic.jpg", "a.heif.jpg", "sub/x-2.png"]
    report = run(source, np.array)
    assert report.complete and sorted(contents(source / "stylized")) == wanted
    assert len({name.casefold() for name in wanted}) == 6
    levels = {name: int(read_image(source / "stylized" / name).data.mean().round()) for name in wanted}
    assert [levels[name] // 10 * 10 for name in ("a.heic.jpg", "a-2.jpg", "A.JPG", "a.heif.jpg")] == [0, 20, 40, 60]
    assert run(source, np.array).count("skipped") == 6


def test_a_photo_that_joins_later_takes_no_name_away(tmp_path, gradient, invert, contents):
    import pillow_heif

    pillow_heif.register_heif_opener()
    Image.fromarray(gradient).save(tmp_path / "a.heic")
    run(tmp_path, invert)
    first = contents(tmp_path / "stylized")
    Image.fromarray(gradient[::-1]).save(tmp_path / "a.jpg")
    report = run(tmp_path, invert)
    assert report.count("done") == 1 and report.count("skipped") == 1
    after = contents(tmp_path / "stylized")
    assert after["a.jpg"] == first["a.jpg"] and sorted(after) == ["a-2.jpg", "a.jpg"]


def test_a_folder_called_like_a_result(tmp_path, gradient, invert, contents):
    (tmp_path / "in/a.png").mkdir(parents=True)
    Image.fromarray(gradient).save(tmp_path / "in/a.png/b.png")
    Image.fromarray(gradient).quantize(8).save(tmp_path / "in/a.gif")
    assert run(tmp_path / "in", invert).complete
    assert sorted(contents(tmp_path / "in/stylized")) == ["a.gif.png", "a.png/b.png"]


def test_folders_that_cannot_be_worked_on(tmp_path, tree, invert):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="no photos"):
        run(tmp_path / "empty", invert)
    assert not (tmp_path / "empty/stylized").exists()
    with pytest.raises(InputError, match="no such folder"):
        run(tmp_path / "missing", invert)
    with pytest.raises(InputError, match="stylize image"):
        run(tree / "a.jpg", invert)
    for target in (tree, tree.parent):
        with pytest.raises(OutputError, match="choose another folder"):
            run(tree, invert, target)
    with pytest.raises(OutputError, match="choose another folder"):
        run(tree, invert, tmp_path / "file")
    with pytest.raises(OutputError, match="choose another folder"):
        run(tree, invert, tmp_path / "file" / "below")


def test_a_second_run_at_the_same_time_is_refused(tree, invert):
    def transform(rgb):
        with pytest.raises(OutputError, match="another run"):
            run(tree, invert)
        return rgb

    assert run(tree, transform, settings=ImageSettings(jobs=1)).complete


@pytest.mark.parametrize("how", ["interrupt", "stop"])
@pytest.mark.parametrize("reached", [1, 2, 4, 6])
def test_an_interrupted_run_goes_on_to_the_same_end(tree, invert, contents, tmp_path, how, reached):
    run(tree, invert, tmp_path / "wanted")
    stop, calls = threading.Event(), []

    def transform(rgb):
        calls.append(1)
        if len(calls) == reached:
            if how == "interrupt":
                raise KeyboardInterrupt
            stop.set()
        return invert(rgb)

    report = run(tree, transform, tmp_path / "out", stop=stop)
    done = reached - (how == "interrupt")
    assert report.count("done") == done and report.count("left") == 6 - done
    assert report.interrupted == (done < 6) == (not report.complete)
    if report.interrupted:
        assert "run the same command again" in report.message
    rest = run(tree, invert, tmp_path / "out")
    assert rest.complete and rest.count("skipped") == done
    assert contents(tmp_path / "out") == contents(tmp_path / "wanted")


def test_a_journal_that_was_cut_off_is_mended(tree, invert):
    run(tree, invert)
    journal = tree / "stylized" / JOURNAL_NAME
    data = journal.read_bytes()
    journal.write_bytes(data[:-20])
    report = run(tree, invert)
    assert report.count("skipped") == 6
    assert [photo.reason for photo in report.photos].count("exists") == 1  # its line is lost: never overwritten
    lines = data.split(b"\n")
    journal.write_bytes(b"\n".join([lines[0], b"{garbage", b'{"target": 5}', *lines[1:]]))
    assert {photo.reason for photo in run(tree, invert).photos} == {"up-to-date"}
    assert b"garbage" not in journal.read_bytes()
    journal.write_bytes(b'{"stylize-folder": 99}\n')
    with pytest.raises(ResumeError, match="another version"):
        run(tree, invert)


def test_a_hostile_journal_leads_nowhere_else(tree, invert, tmp_path):
    run(tree, invert)
    journal = tree / "stylized" / JOURNAL_NAME
    journal.write_bytes(journal.read_bytes().replace(b'"target": "b.png"', b'"target": "../../b.png"'))
    run(tree, invert, settings=ImageSettings(overwrite=True))
    assert not (tmp_path / "b.png").exists() and not (tree.parent / "b.png").exists()


def test_at_most_three_pictures_are_in_the_works(tmp_path, gradient, monkeypatch):
    alive, most, lock = [0], [0], threading.Lock()
    read, write = folder_job.read_image, folder_job.write_image

    def counted_read(*args, **more):
        with lock:
            alive[0] += 1
            most[0] = max(most[0], alive[0])
        return read(*args, **more)

    def counted_write(*args, **more):
        time.sleep(0.01)
        try:
            return write(*args, **more)
        finally:
            with lock:
                alive[0] -= 1

    monkeypatch.setattr(folder_job, "read_image", counted_read)
    monkeypatch.setattr(folder_job, "write_image", counted_write)
    for number in range(8):
        Image.fromarray(gradient).save(tmp_path / f"{number}.png")
    assert run(tmp_path, np.array, tmp_path / "out3").complete and 2 <= most[0] <= 3
    most[0] = 0
    monkeypatch.setattr(folder_job, "LARGE_MEGAPIXELS", 0)
    assert run(tmp_path, np.array, tmp_path / "out1").complete and most[0] == 1


def test_the_plan_is_what_the_run_does(tree, invert, contents):
    (tree / "bad.jpg").write_text("no photo")
    plan = plan_folder(FolderJob(source=tree, settings=PLAIN, transform_key="net"), invert)
    assert not (tree / "stylized").exists()
    assert len(plan.photos) == 6 and plan.megapixels == pytest.approx(6 * 40 * 30 / 1e6)
    assert plan.seconds > 0 and plan.bytes > 0 and plan.others[0].status == "failed"
    json.dumps(plan.as_dict())
    report = run(tree, invert)
    assert {photo.target for photo in plan.photos} == {
        photo.target for photo in report.photos if photo.status == "done"
    }
    again = plan_folder(FolderJob(source=tree, settings=PLAIN, transform_key="net"))
    assert again.photos == () and again.seconds is None and len(again.others) == 7


@pytest.mark.slow
def test_real_photos(photos, tmp_path, invert, contents):
    report = run(photos, invert, tmp_path / "out")
    assert report.complete and report.count("done") == len(list(photos.iterdir()))
    for photo in report.photos:
        with Image.open(photo.target) as result:
            assert result.size == (photo.width, photo.height)
