from __future__ import annotations

import threading

import pytest

from training.errors import CheckpointError, TrainingError
from training.files import write_file


def test_a_file_appears_whole_and_replaces_the_one_before(tmp_path):
    path = tmp_path / "a.txt"
    for data, expected in ((b"one", b"one"), ("zwölf", "zwölf".encode()), (memoryview(b"three"), b"three")):
        write_file(path, data)
        assert path.read_bytes() == expected
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_failed_write_keeps_what_was_there(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match=r"folder cannot be written \(Is a directory\): try again; what was"):
        write_file(tmp_path / "folder", b"x", remedy="try again", error=CheckpointError)
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(TrainingError, match=r"file.a cannot be written"):
        write_file(tmp_path / "file" / "a", b"x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_writers_of_one_file_do_not_mix(tmp_path):
    texts = [str(i) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=write_file, args=(tmp_path / "a", text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_text() in texts
    assert len(list(tmp_path.iterdir())) == 1
