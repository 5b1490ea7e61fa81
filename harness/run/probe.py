"""Start each backend in a worker, and report whether it can run here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Final

from harness.catalog.registry import select
from harness.machine import environment
from harness.machine.threads import budget
from harness.process.folders import default_cache
from harness.process.handle import WorkerError
from harness.process.protocol import Load, Loaded
from harness.process.supervisor import Supervisor

#: Longest time that loading one backend may take, in seconds.
LIMIT_SECONDS: Final = 120.0


@dataclasses.dataclass(frozen=True, slots=True)
class Probe:
    """One backend on one device, and the reply of its worker.

    Attributes:
        name: Name of the backend.
        device: ``cpu`` or ``cuda``.
        loaded: Reply of the worker; not available, with the reason, if the worker failed.
    """

    name: str
    device: str
    loaded: Loaded


def probe(names: Sequence[str]) -> Iterator[Probe]:
    """Yield a probe for each backend on each device of this machine."""
    devices = environment.devices()
    targets = {name: entry.target for name, entry in select(names).items()}
    with Supervisor(budget(None), default_cache()) as workers:
        for name, target in targets.items():
            for device in devices:
                try:
                    worker, _ = workers.worker(name, device)
                    loaded = worker.request(Load(name, target, device), LIMIT_SECONDS)
                except WorkerError as error:
                    loaded = Loaded(False, error.reason)
                workers.discard(name, device)
                yield Probe(name, device, loaded)
