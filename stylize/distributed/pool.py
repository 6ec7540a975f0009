"""Ray: workers that hold the model, and work that is handed to them and handed out again when a worker dies.

Everything that touches Ray is here; it is imported only when a cluster is asked for.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stylize import __version__
from stylize.distributed.worker import ClusterWorker, Failed, WorkerFacts
from stylize.errors import ClusterError, StylizeError, ToolError
from stylize.settings import StyleSettings
from stylize.video.report import StoppedError

__all__ = ["ATTEMPTS", "Pool", "Work", "check_address", "open_pool"]

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a piece of work is begun before it counts as failed, and a worker before its place is given up."""

USUAL_CPUS = 4
"""Cores of a worker without a GPU, where the machines have as many."""

PATIENCE = 5.0
"""Seconds to wait for an address to answer."""


@dataclass(kw_only=True, eq=False)
class Work:
    """Something for a worker to do."""

    method: str
    """Of `ClusterWorker`."""
    arguments: Callable[[], tuple[Any, ...]]
    """Called when it is handed out; may raise StylizeError."""
    done: Callable[[Any], None]
    """Called in the pool's thread with what the method returned, or a `Failed`."""
    wanted: Callable[[], bool] = lambda: True
    """Whether it is still to be done."""
    attempts: int = 0


@dataclass(eq=False)
class _Place:
    """One worker, and what it is doing."""

    actor: Any = None
    facts: WorkerFacts | None = None
    """None until it is ready."""
    busy: dict[Any, Work] = field(default_factory=dict)
    deaths: int = 0
    """How often in a row it did not get ready."""


def check_address(address: str) -> str:
    """``auto``, ``local``, ``ray://host:port`` or ``host:port``; ValueError for anything else."""
    if address in ("auto", "local") or re.fullmatch(r"(ray://)?[^\s/:]+:\d{1,5}", address):
        return address
    raise ValueError(f"a Ray address is auto, local, ray://host:port or host:port, got {address!r}")


@contextmanager
def open_pool(address: str, style: StyleSettings, *, video: bool, cpus: int | None = None) -> Iterator[Pool]:
    """Connect to a cluster and have a first worker ready.

    Args:
        address: see `check_address`; `local` starts a cluster on this machine.
        style: what the workers open.
        video: what model `auto` is to be chosen for.
        cpus: cores of a worker; None: its GPU alone decides, and without GPUs up to `USUAL_CPUS`.

    Raises:
        ToolError: Ray is not installed.
        ClusterError: the cluster cannot be reached, or no worker starts there.
    """
    try:
        import ray
    except ImportError as error:
        raise ToolError("--ray needs Ray: pip install 'firewatch-stylizer[ray]'") from error
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, address)
    pool: Pool | None = None
    try:
        pool = Pool(ray, style, video=video, cpus=cpus)
        pool.start()
        yield pool
    finally:
        if pool is not None:
            pool.close()
        if ours:
            ray.shutdown()


def _connect(ray: Any, address: str) -> None:
    place = address.removeprefix("ray://")
    if address not in ("auto", "local"):
        host, _, port = place.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=PATIENCE).close()
        except (OSError, OverflowError) as error:
            raise ClusterError(
                f"no Ray cluster answers at {address} ({error}): check host, port and firewall"
            ) from error
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options["include_dashboard"] = False
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # a cluster that we start reports to nobody
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters comes as an error
            ray.init(address=address, **options)
    except ImportError as error:
        raise ToolError(f"{address} needs Ray's client ({error}): pip install 'ray[client]'") from error
    except Exception as error:  # Ray raises whatever it meets on the way
        if address == "auto" and isinstance(error, ConnectionError):
            raise ClusterError("no Ray cluster runs here: start one with `ray start --head`, or --ray local") from error
        hint = "check that both sides have one version of Ray, and set RAY_AUTH_MODE=token if the cluster wants a token"
        if address == "local":
            hint = "run it again when the machine is less busy, or work without --ray"
        raise ClusterError(f"no Ray cluster at {address} ({_line(error)}): {hint}") from error


def _line(error: BaseException) -> str:
    """An error of Ray's in one line without colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


class Pool:
    """Workers, and the loop that keeps them busy; a worker that dies is replaced and its work done again."""

    def __init__(self, ray: Any, style: StyleSettings, *, video: bool, cpus: int | None) -> None:
        from engine.choice import CPU_BACKENDS

        self._ray = ray
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = sum(int(node.get("GPU", 0)) for node in nodes)
        on_gpu = gpus > 0 and style.backend not in CPU_BACKENDS and style.device != "cpu"
        cores = [int(node.get("CPU", 0)) for node in nodes]
        self.cpus = cpus or (1 if on_gpu else max(1, min(USUAL_CPUS, min((c for c in cores if c), default=1))))
        """Cores of a worker."""
        if on_gpu:
            self.capacity = sum(min(int(n.get("GPU", 0)), int(n.get("CPU", 0)) // self.cpus) for n in nodes)
        else:
            self.capacity = sum(count // self.cpus for count in cores)
        if not self.capacity:
            have = f"{max(cores, default=0)} cores" + (f" and {gpus} GPUs in all" if gpus else "")
            raise ClusterError(
                f"no machine of the cluster has {self.cpus} cores for a worker ({have}): lower --ray-cpus"
            )
        self._lanes = 2 if on_gpu else 1
        """Pieces of work at once: on a GPU one may begin while another ends."""
        if not style.threads and not on_gpu:
            style = replace(style, threads=self.cpus)
        if (Path(style.model) / "spec.json").is_file():
            style = replace(style, model=str(Path(style.model).absolute()))
        self._style, self._video = style, video
        self._make = ray.remote(
            num_cpus=self.cpus, num_gpus=1 if on_gpu else 0, max_restarts=0, max_concurrency=self._lanes + 1
        )(ClusterWorker)
        self._places: list[_Place] = []
        self._opening: dict[Any, _Place] = {}
        self._waiting: deque[Work] = deque()
        self._told = time.monotonic()
        self.key = ""
        """Of model and settings, the same on every worker; known from `start` on."""
        self.lost = 0
        """Workers that died."""

    def start(self) -> None:
        """Open the first worker.  Raises ClusterError."""
        self._grow(1)
        while not self.key:
            self._step()

    def close(self) -> None:
        """End all workers."""
        for place in self._places:
            self._kill(place)
        self._places, self._opening = [], {}

    def add(self, work: Work) -> None:
        """Have something done as soon as possible, in the order of these calls."""
        self._waiting.append(work)

    def run(self, source: Iterator[Work], stop: threading.Event) -> None:
        """Do all that `source` gives, in its order as far as workers are free, and what is added meanwhile.

        Raises:
            StoppedError: `stop` was set.
            ClusterError: no worker can be had any more.
        """
        more: Iterator[Work] | None = source
        while more is not None or self._waiting or any(place.busy for place in self._places):
            if stop.is_set():
                raise StoppedError
            more = self._hand_out(more)
            if self._waiting or any(place.busy for place in self._places):
                self._step()

    def _hand_out(self, source: Iterator[Work] | None) -> Iterator[Work] | None:
        """Give every free lane something to do; returns the source, or None when it has ended."""
        lanes = [p for p in self._places if p.facts for _ in range(self._lanes - len(p.busy))]
        lanes.sort(key=lambda place: len(place.busy))
        room = len(lanes) + self.capacity - len(self._places)
        while source is not None and len(self._waiting) < max(1, room):
            work = next(source, None)
            if work is None:
                source = None
            else:
                self._waiting.append(work)
        self._grow(min(self.capacity, len(self._waiting) + sum(1 for p in self._places if p.busy)))
        for place in lanes:
            if not self._waiting:
                break
            self._submit(place, self._waiting.popleft())
        return source

    def _submit(self, place: _Place, work: Work) -> None:
        if not work.wanted():
            return
        try:
            arguments = work.arguments()
        except StylizeError as error:
            work.done(Failed(message=str(error)))
            return
        work.attempts += 1
        place.busy[getattr(place.actor, work.method).remote(*arguments)] = work

    def _grow(self, count: int) -> None:
        while len(self._places) < count:
            place = _Place()
            self._places.append(place)
            self._open(place)

    def _open(self, place: _Place) -> None:
        place.facts = None
        place.actor = self._make.remote(self._style, video=self._video)
        self._opening[place.actor.open.remote()] = place

    def _step(self) -> None:
        """Wait a moment for anything to happen, and deal with it."""
        refs = [*self._opening, *(ref for place in self._places for ref in place.busy)]
        if not refs:
            return
        ready, _ = self._ray.wait(refs, num_returns=1, timeout=0.5)
        if not ready and not any(p.facts for p in self._places) and time.monotonic() - self._told > 60:
            self._told = time.monotonic()
            log.warning("waiting for the cluster to give a worker (%d cores each): is it busy?", self.cpus)
        for ref in ready:
            place = self._opening.pop(ref, None)
            if place is not None:
                self._opened(place, ref)
                continue
            place = next(place for place in self._places if ref in place.busy)
            self._finished(place, ref)

    def _opened(self, place: _Place, ref: Any) -> None:
        try:
            facts = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._die(place, error)
            return
        fault = self._fault(facts)
        if fault and not self.key:
            raise ClusterError(fault)
        if fault:
            log.warning("%s; going on without it", fault)
            self._drop(place)
            if not self._places and self.capacity <= 0:
                raise ClusterError(f"no worker of the cluster can be used any more: {fault}")
            return
        self.key, place.facts, place.deaths = facts.key, facts, 0
        log.info("worker on %s (process %d): %s", facts.node, facts.pid, facts.description)

    def _fault(self, facts: WorkerFacts | Failed) -> str:
        """Why a worker that has started cannot be used, if so."""
        if isinstance(facts, Failed):
            return facts.message
        if facts.version != __version__:
            return f"{facts.node} has stylizer {facts.version}, not {__version__} as here: install the same"
        if self.key not in ("", facts.key):
            return f"{facts.node} takes another model than the others: name one with --model"
        return ""

    def _drop(self, place: _Place) -> None:
        """Do without a worker."""
        self._kill(place)
        self._places.remove(place)
        self.capacity -= 1

    def _finished(self, place: _Place, ref: Any) -> None:
        try:
            result = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            log.debug("a worker failed", exc_info=True)
            result = Failed(message=_line(error.cause if isinstance(error.cause, BaseException) else error))
        except self._ray.exceptions.RayError as error:
            self._die(place, error)
            return
        place.busy.pop(ref).done(result)

    def _die(self, place: _Place, error: BaseException) -> None:
        """Replace a worker that is lost; what it was doing comes first in the queue."""
        self.lost += 1
        node = place.facts.node if place.facts else "a machine"
        log.warning("a worker on %s was lost; what it was doing is done again", node)
        log.debug("%s", error)
        again, place.busy = list(place.busy.values()), {}
        if place.facts is None:
            place.deaths += 1
        if place.deaths < ATTEMPTS:
            self._kill(place)
            self._open(place)
        else:
            self._drop(place)
        for work in reversed(again):
            if work.attempts < ATTEMPTS:
                self._waiting.appendleft(work)
            else:
                work.done(Failed(message=f"its worker was lost {ATTEMPTS} times: is there enough memory?"))
        if not self._places:
            raise ClusterError(f"no worker of the cluster stays alive ({_line(error)}): see Ray's logs")

    def _kill(self, place: _Place) -> None:
        try:
            self._ray.kill(place.actor, no_restart=True)
        except Exception:  # it is dead already, or the cluster is
            log.debug("a worker could not be ended", exc_info=True)
