"""The loader: one worker for each backend and device, loaded once and kept; or a fresh one, where that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness.process.supervisor import WorkerError
from harness.run.context import RunContext, WorkerHandle

#: A backend's worker, None if it cannot be had; and what it said when it was loaded, or why it did not.
Loaded = tuple[WorkerHandle | None, dict[str, Any] | WorkerError]


class Loader:
    """Loads backends.

    Args:
        context: Plan, workers and whom to tell.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        #: Kept while its worker lives, or for good if the backend cannot be had.
        self._loaded: dict[tuple[str, str], Loaded] = {}

    def load(self, name: str, device: str) -> Loaded:
        """Return a backend's worker and what it said when it was loaded; each worker is asked once."""
        kept = self._loaded.get((name, device))
        if kept is not None and (kept[0] is None or kept[0].alive):
            return kept
        installed = self._context.plan.backends[name].installed()
        if installed.ok:
            self._context.progress.stage(f"start {name}")
            loaded = self._ask(name, device, self._spawn(name, device))
        else:
            loaded = None, {"available": False, "reason": installed.reason, "offered": True}
        self._loaded[name, device] = loaded
        return loaded

    def renew(self, names: Sequence[str], device: str) -> list[Loaded]:
        """End these backends' workers and load fresh ones, side by side: nothing is measured meanwhile."""
        started: list[tuple[WorkerHandle, bool] | WorkerError] = []
        for name in names:
            self._context.workers.discard(name, device)
            # Here and not in the pool: a worker dies with the thread that has started it (PR_SET_PDEATHSIG).
            started.append(self._spawn(name, device))
        with ThreadPoolExecutor(max_workers=self._context.plan.threads) as pool:
            loaded = list(pool.map(lambda pair: self._ask(pair[0], device, pair[1]), zip(names, started, strict=True)))
        for name, (worker, answer) in zip(names, loaded, strict=True):
            self._loaded[name, device] = worker, answer
        return loaded

    def _spawn(self, name: str, device: str) -> tuple[WorkerHandle, bool] | WorkerError:
        try:
            return self._context.workers.worker(name, device)
        except WorkerError as error:
            return error

    def _ask(self, name: str, device: str, started: tuple[WorkerHandle, bool] | WorkerError) -> Loaded:
        """Have a backend loaded by its worker; one that cannot be had does not keep the process."""
        plan = self._context.plan
        answer: dict[str, Any] | WorkerError = {"available": False}
        if isinstance(started, WorkerError):
            answer = started
        else:
            worker, caches = started
            base, target = name.partition("#")[0], plan.backends[name].target
            try:
                answer = worker.request("load", plan.time_limit_seconds, name=base, target=target, device=device)
            except WorkerError as error:
                answer = error
            if not isinstance(answer, WorkerError) and answer["available"]:
                answer["compile_cache"] = "empty" if caches else "filled"
                return worker, answer
        # It will be no different for the next case: do not ask again.
        self._context.workers.discard(name, device)
        return None, answer
