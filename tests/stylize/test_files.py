"""What is written appears whole or not at all, and replaces nothing unasked."""

import errno
import os

import pytest

from engine import files
from stylize.errors import OutputError
from stylize.files import DiskFullError, new_file, part_path, write_bytes


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_name_at_the_end(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with new_file(target) as part:
        part.write_text("whole")
        assert not target.exists() and part == part_path(target)
    assert target.read_text() == "whole" and names(target.parent) == ["a.txt"]


def test_nothing_is_replaced_unasked_even_if_it_came_meanwhile(tmp_path):
    target = tmp_path / "a.txt"
    with pytest.raises(OutputError, match=r"exists already.*--overwrite"), new_file(target) as part:
        part.write_text("mine")
        target.write_text("precious")
    with pytest.raises(OutputError, match="exists already"), new_file(target):
        raise AssertionError("not begun")
    (tmp_path / "link.txt").symlink_to("nowhere")
    with pytest.raises(OutputError, match="exists already"):
        write_bytes(tmp_path / "link.txt", b"mine")
    assert target.read_text() == "precious" and names(tmp_path) == ["a.txt", "link.txt"]
    write_bytes(target, b"asked", overwrite=True)
    assert target.read_text() == "asked"


def test_file_systems_without_links(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    write_bytes(tmp_path / "a", b"1")
    with pytest.raises(OutputError, match="exists already"), new_file(tmp_path / "b") as part:
        part.write_bytes(b"2")
        (tmp_path / "b").write_bytes(b"precious")
    assert names(tmp_path) == ["a", "b"] and (tmp_path / "b").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (errno.ENOSPC, DiskFullError, "disk is full"),
        (errno.EROFS, OutputError, "no permission"),
        (errno.ENAMETOOLONG, OutputError, "too long"),
        (errno.EIO, OutputError, "cannot be written"),
    ],
)
def test_errors_leave_nothing_and_are_one_line(tmp_path, code, kind, words):
    with pytest.raises(kind, match=words), new_file(tmp_path / "a") as part:
        part.write_bytes(b"half")
        raise OSError(code, os.strerror(code))
    with pytest.raises(KeyboardInterrupt), new_file(tmp_path / "a") as part:
        part.write_bytes(b"half")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_leftovers_of_a_killed_run_are_taken_over(tmp_path):
    part_path(tmp_path / "a").write_bytes(b"half")
    write_bytes(tmp_path / "a", b"whole")
    assert names(tmp_path) == ["a"]


def test_several_writers_of_one_file(tmp_path):
    with files.new_file(tmp_path / "a", overwrite=True, several=True) as one:
        one.write_bytes(b"1")
        with files.new_file(tmp_path / "a", overwrite=True, several=True) as two:
            two.write_bytes(b"2")
        assert (tmp_path / "a").read_bytes() == b"2"
    assert (tmp_path / "a").read_bytes() == b"1" and names(tmp_path) == ["a"]


def test_folders_appear_whole(tmp_path):
    target = tmp_path / "model"
    with files.new_folder(target) as work:
        (work / "a").write_text("1")
        assert not target.exists()
    with pytest.raises(FileExistsError), files.new_folder(target):
        raise AssertionError("not begun")
    with pytest.raises(ZeroDivisionError), files.new_folder(target, overwrite=True) as work:
        (work / "b").write_text(str(1 / 0))
    assert names(target) == ["a"]
    with files.new_folder(target, overwrite=True) as work:
        (work / "b").write_text("2")
    assert names(target) == ["b"] and names(tmp_path) == ["model"]
