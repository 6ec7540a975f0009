"""The numbers of a run: stats.jsonl, and TensorBoard where asked for."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import TracebackType
from typing import Any

from training.data.pseudo_pairs import U8
from training.errors import TrainingError
from training.files import write_file

__all__ = ["RunLog"]


class RunLog:
    """One JSON line per step; a context manager.

    Args:
        folder: the run folder.
        step: the step that a resumed run goes on from; later lines of an interrupted run are dropped.
        tensorboard: write event files to ``folder/tensorboard`` as well.
    """

    def __init__(self, folder: Path, *, step: int = 0, tensorboard: bool = False) -> None:
        self.path, self.step, self.tensorboard = folder / "stats.jsonl", step, tensorboard
        self._board: Any = None

    def __enter__(self) -> RunLog:
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            write_file(self.path, "".join(f"{line}\n" for line in lines if _step(line) <= self.step))
        if self.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise TrainingError("TensorBoard is not installed: pip install tensorboard") from error
            self._board = SummaryWriter(self.path.parent / "tensorboard", purge_step=self.step)
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with contextlib.suppress(*([OSError] if error else [])):  # the first error is the one to show
            self._file.close()
            if self._board is not None:
                self._board.close()

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add the numbers of one step."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def grid(self, step: int, image: U8) -> None:
        """Add a sample grid, RGB uint8 ``(H, W, 3)``."""
        if self._board is not None:
            self._board.add_image("samples", image, step, dataformats="HWC")

    def flush(self) -> None:
        """Bring everything to disk."""
        self._file.flush()
        if self._board is not None:
            self._board.flush()


def _step(line: str) -> int:
    """The step of a line; a torn line counts as later than all others."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 1 << 62
