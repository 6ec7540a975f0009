"""Shares of the work for job arrays: job 3 of 8 does the third eighth, whatever the others do."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass

__all__ = ["Shard", "shard_of_segment"]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One job of several, counted from 1."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"a shard is i/n with i from 1 to n, such as 3/8, got {self}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``3/8``.  Raises ValueError for anything else."""
        found = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text, re.ASCII)
        if not found:
            raise ValueError(f"a shard is i/n with i from 1 to n, such as 3/8, got {text!r}")
        return cls(number=int(found[1]), count=int(found[2]))

    def has_file(self, name: str) -> bool:
        """Whether a file is this shard's: by a hash of its relative path, so that no listing is needed.

        Composed and decomposed accents are one name.
        """
        return _spread(unicodedata.normalize("NFC", name)) % self.count == self.number - 1

    def has_segment(self, index: int, total: int, key: str) -> bool:
        """Whether segment `index` of `total` is this shard's: see `shard_of_segment`."""
        return shard_of_segment(index, total, self.count, key) == self.number


def shard_of_segment(index: int, total: int, count: int, key: str) -> int:
    """Which of `count` shards makes segment `index` of `total`.

    Shards get neighbouring segments, each as many as the others or one more; `key` (the video's name) says
    which shard begins, so that short videos do not all fall to the first one.
    """
    return (index * count // total + _spread(key)) % count + 1


def _spread(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8], "big")
