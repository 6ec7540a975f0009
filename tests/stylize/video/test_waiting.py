"""Many seconds of smoothing: what waits beyond the memory's share comes back from the disk as it was."""

import weakref

import numpy as np
import pytest

from stylize.errors import OutputError
from stylize.video import waiting
from stylize.video.waiting import WaitingPictures


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)


def test_pictures_come_back_and_only_some_stay_in_memory(monkeypatch):
    monkeypatch.setattr(waiting, "IN_MEMORY", 3 * 30 * 40 * 3)
    pictures, queue, alive = WaitingPictures(), [], []
    for seed in range(60):
        image = picture(seed)
        alive.append(weakref.ref(image))
        queue.append((seed, pictures.put(image)))
        del image
        assert sum(ref() is not None for ref in alive) <= 3
        if seed % 3 == 2:
            old, take = queue.pop(0)
            assert np.array_equal(take(), picture(old))
            del take
    for seed, take in queue:
        assert np.array_equal(take(), picture(seed))
    pictures.close()


def test_a_full_disk_is_one_line(monkeypatch):
    monkeypatch.setattr(waiting, "IN_MEMORY", 0)

    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(waiting.tempfile, "TemporaryFile", full)
    with pytest.raises(OutputError, match="lower --smoothing"):
        WaitingPictures().put(picture(0))
