"""Shares of a folder, done by jobs that know nothing of each other, make what one run makes."""

import multiprocessing

import pytest

from stylize.errors import OutputError
from stylize.media.image.settings import ImageSettings
from stylize.photos.job import FolderJob, stylize_folder
from stylize.photos.journal import FolderJournal, read_entries
from stylize.sharding import Shard


def invert(rgb):
    return 255 - rgb


def run(source, output, text=None, key="test", **values):
    shard = Shard.parse(text) if text else None
    job = FolderJob(source=source, target=output, settings=ImageSettings(**values), transform_key=key, shard=shard)
    return stylize_folder(job, invert)


def test_shards_make_what_one_run_makes(tree, tmp_path, contents):
    (tree / "a.png").write_bytes((tree / "b.png").read_bytes())  # two results of one name, were it not for the order
    whole = run(tree, tmp_path / "whole", format="jpeg")
    parts = [run(tree, tmp_path / "parts", f"{number}/3", format="jpeg") for number in (2, 3, 1)]
    assert sum(part.count("done") for part in parts) == whole.count("done") == 7
    assert len({photo.source for part in parts for photo in part.photos}) == 7
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert len(read_entries(tmp_path / "parts")) == 7
    again = run(tree, tmp_path / "parts", "2/3", format="jpeg")
    assert again.count("done") == 0 and again.complete


def test_a_run_that_is_no_shard_takes_over(tree, tmp_path):
    output = tmp_path / "out"
    first = run(tree, output, "1/2").count("done")
    rest = run(tree, output)
    assert (rest.count("skipped"), rest.count("done")) == (first, 6 - first) and 0 < first < 6
    assert sorted(p.name for p in output.iterdir() if p.name.startswith(".stylize")) == [
        ".stylize.jsonl",
        ".stylize.lock",
    ]
    assert run(tree, output, "2/2").count("done") == 0


def job(source, output, text, results):
    results.put(run(source, output, text).count("done"))


def test_shards_run_at_once(tree, tmp_path, contents):
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    jobs = [spawn.Process(target=job, args=(tree, tmp_path / "out", f"{n}/3", results)) for n in (1, 2, 3)]
    for one in jobs:
        one.start()
    assert sum(results.get(timeout=120) for _ in jobs) == 6
    for one in jobs:
        one.join(60)
    run(tree, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize(("first", "second"), [(None, "1/2"), ("1/2", "1/2"), ("1/2", None)])
def test_runs_that_would_collide_are_refused(tree, tmp_path, monkeypatch, first, second):
    monkeypatch.setattr("stylize.photos.journal._PATIENCE", 0.1)
    output = tmp_path / "out"
    with (
        FolderJournal(output, Shard.parse(first) if first else None),
        pytest.raises(OutputError, match="another run writes there"),
    ):
        run(tree, output, second)
    run(tree, output, second)
