"""What results are called that were given no name, each by a name of its own."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import TypeVar

__all__ = ["RESULT", "assign_results", "beside", "name_key"]

RESULT = ".firewatch"
"""Last but one suffix of such a result; runs over folders pass it over."""

P = TypeVar("P", bound=PurePath)


def beside(source: Path, suffix: str) -> Path:
    """``NAME.firewatch`` with `suffix` (``.mp4``), in the folder of `source`."""
    return source.with_name(f"{source.stem}{RESULT}{suffix}")


def name_key(path: PurePath) -> str:
    """Two names with one key are one file on some systems (case, composed and decomposed accents)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path.as_posix()).casefold())


def _candidates(source: P, suffix: str, mark: str) -> Iterator[P]:
    """Names for a result, best first: ``a.jpg``, ``a.heic.jpg``, ``a-2.jpg``, ``a-3.jpg``, ..."""
    yield source.with_name(f"{source.stem}{mark}{suffix}")
    if suffix != source.suffix:
        yield source.with_name(f"{source.name}{mark}{suffix}")
    number = 2
    while True:
        yield source.with_name(f"{source.stem}-{number}{mark}{suffix}")
        number += 1


def assign_results(
    sources: Iterable[P],
    suffix_for: Callable[[P], str],
    *,
    known: Mapping[str, str] | None = None,
    mark: str = "",
) -> dict[P, P]:
    """Give every source a result of its own in its own folder, distinct even where case and accents do not count.

    First come the names that an earlier run gave (`known`: result to source, as POSIX paths), then sources whose
    result is called as they are, then the others, each group in order: the same sources always get the same names,
    and with `known` one that joins later takes no name from another.  `mark` stands before the suffix.
    """
    waiting = sorted(sources, key=lambda path: path.parts)
    taken = {name_key(parent) for path in waiting for parent in path.parents}
    assigned: dict[P, P] = {}
    by_name = {path.as_posix(): path for path in waiting}
    for result, name in (known or {}).items():
        source = by_name.get(name)
        if source is None or source in assigned or PurePath(result).suffix != suffix_for(source):
            continue
        target = type(source)(result)
        if target.parent == source.parent and name_key(target) not in taken:
            assigned[source] = target
            taken.add(name_key(target))
    rest = [path for path in waiting if path not in assigned]
    for path in sorted(rest, key=lambda path: suffix_for(path) != path.suffix):
        assigned[path] = next(name for name in _candidates(path, suffix_for(path), mark) if name_key(name) not in taken)
        taken.add(name_key(assigned[path]))
    return {path: assigned[path] for path in waiting}
