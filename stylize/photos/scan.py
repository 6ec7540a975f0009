"""Which photos a folder holds, and what each one's result is called."""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from stylize.errors import InputError, OutputError
from stylize.files import shown
from stylize.media.formats import READ_SUFFIXES
from stylize.result_name import RESULT

__all__ = ["JOURNAL_NAME", "OUTPUT_NAME", "Scan", "output_folder", "scan_folder"]

OUTPUT_NAME = "stylized"
"""Folder inside the source that results go to unless another is given."""
SHEETS = (".preview.png", ".compare.png")
"""Ends of the names that `stylize preview` and `stylize compare` give to what they make of photos."""
JOURNAL_NAME = ".stylize.jsonl"
"""File that marks a folder as one of results, and keeps its journal."""


@dataclass
class Scan:
    """What was found in a folder; all paths are relative to it."""

    photos: list[PurePath] = field(default_factory=list)
    """Photos to do, sorted."""
    links: list[PurePath] = field(default_factory=list)
    """Links to photos that are in the list under their own names."""
    problems: list[tuple[PurePath, str]] = field(default_factory=list)
    """Folders and links that cannot be read, and why."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Files of other kinds: suffix in lower case to number."""


def output_folder(source: Path, target: Path | None) -> Path:
    """Where results go.  Raises InputError where the source is no folder, OutputError where the two overlap badly."""
    try:
        if not source.exists():
            raise InputError(f"{shown(source)}: no such folder: check the path")
        if not source.is_dir():
            raise InputError(f"{shown(source)}: is a file, not a folder: use `stylize image` or `stylize video`")
    except (OSError, ValueError) as error:
        raise InputError(f"{shown(source)}: cannot be read ({error}): check the path and its rights") from error
    output = source / OUTPUT_NAME if target is None else target
    try:
        if output.exists() and not output.is_dir():
            raise OutputError(f"{shown(output)}: is a file, not a folder: choose another folder with -o")
        inside = output.resolve()
        if inside == source.resolve() or inside in source.resolve().parents:
            raise OutputError(f"{shown(output)}: holds the photos themselves: choose another folder with -o")
    except (OSError, ValueError, RuntimeError) as error:
        raise OutputError(f"{shown(output)}: cannot be reached ({error}): choose another folder with -o") from error
    return output


def scan_folder(source: Path, output: Path, *, recursive: bool = True) -> Scan:
    """Find the photos below `source`, but none below `output` or another folder of results.

    Hidden files and folders are passed over.  Links are followed, after all that is there by its own
    name, and every folder and file is visited once: loops end, and nothing is done twice.
    """
    scan = Scan()
    files: list[tuple[PurePath, bool, os.stat_result]] = []
    visited = {_identity(output.stat())} if output.exists() else set()
    own: list[PurePath] = [PurePath()]
    linked: list[PurePath] = []
    while own or linked:
        relative = own.pop() if own else linked.pop(0)
        try:
            identity = _identity((source / relative).stat())
            if identity in visited:
                continue
            visited.add(identity)
            with os.scandir(source / relative) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            scan.problems.append((relative, f"the folder cannot be read ({error.strerror}): check its rights"))
            continue
        if relative.parts and any(entry.name == JOURNAL_NAME for entry in entries):
            continue
        folders = [entry for entry in entries if _sort(entry, relative, scan, files, output)]
        if recursive:
            linked += [relative / entry.name for entry in folders if entry.is_symlink()]
            own += [relative / entry.name for entry in reversed(folders) if not entry.is_symlink()]
    _keep_once(scan, files)
    return scan


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _sort(
    entry: os.DirEntry[str],
    relative: PurePath,
    scan: Scan,
    files: list[tuple[PurePath, bool, os.stat_result]],
    output: Path,
) -> bool:
    """Put a directory entry where it belongs; True where it is a folder to go into."""
    if entry.name.startswith("."):
        return False
    path, suffix = relative / entry.name, PurePath(entry.name).suffix.lower()
    suffix = next((sheet for sheet in SHEETS if entry.name.endswith(sheet)), suffix)
    if path.with_suffix("").suffix == RESULT:
        suffix = RESULT + suffix
    photo = suffix in READ_SUFFIXES
    try:
        status = entry.stat()
        if stat.S_ISDIR(status.st_mode):
            return True
        if entry.is_symlink() and Path(entry.path).resolve().is_relative_to(output.resolve()):
            return False
    except (OSError, RuntimeError):
        if photo:
            scan.problems.append((path, "a link that leads nowhere: remove it or restore what it points to"))
        return False
    if not photo:
        scan.ignored[suffix] += 1
    elif not stat.S_ISREG(status.st_mode):
        scan.problems.append((path, "not a regular file: remove it"))
    else:
        files.append((path, entry.is_symlink(), status))
    return False


def _keep_once(scan: Scan, files: list[tuple[PurePath, bool, os.stat_result]]) -> None:
    """Part photos from links to them; of several links to a photo elsewhere the first one counts."""
    seen = {_identity(status) for _, linked, status in files if not linked}
    for path, linked, status in sorted(files, key=lambda item: item[0].parts):
        if not linked:
            scan.photos.append(path)
        elif _identity(status) in seen:
            scan.links.append(path)
        else:
            seen.add(_identity(status))
            scan.photos.append(path)
