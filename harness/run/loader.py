"""The loader: one worker for each backend and device, loaded once and kept; or a fresh one, where that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from harness.process.handle import WorkerError, WorkerHandle
from harness.process.protocol import Load, Loaded
from harness.run.context import RunContext

#: A backend's worker, None if it cannot be had; and what it said when it was loaded, or why it did not.
LoadedWorker = tuple[WorkerHandle | None, Loaded | WorkerError]


class Loader:
    """Loads backends.

    Args:
        context: Plan, workers and whom to tell.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        #: Kept while its worker lives, or for good if the backend cannot be had.
        self._loaded: dict[tuple[str, str], LoadedWorker] = {}
        self._compile_caches: dict[tuple[str, str], str] = {}

    def load(self, name: str, device: str) -> LoadedWorker:
        """Return a backend's worker and what it said when it was loaded; each worker is asked once."""
        kept = self._loaded.get((name, device))
        if kept is not None and (kept[0] is None or kept[0].alive):
            return kept
        installed = self._context.plan.backends[name].installed()
        if installed.ok:
            self._context.progress.stage(f"start {name}")
            loaded = self._ask(name, device, self._spawn(name, device))
        else:
            loaded = None, Loaded(False, installed.reason)
        self._loaded[name, device] = loaded
        return loaded

    def renew(self, names: Sequence[str], device: str) -> list[LoadedWorker]:
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
            self._compile_caches.pop((name, device), None)  # the next case finds the worker warm
        return loaded

    def compile_cache(self, name: str, device: str) -> str:
        """Return what the compile caches were when the worker started; ``warm_worker`` from its second case on."""
        return self._compile_caches.pop((name, device), "warm_worker")

    def _spawn(self, name: str, device: str) -> tuple[WorkerHandle, bool] | WorkerError:
        try:
            return self._context.workers.worker(name, device)
        except WorkerError as error:
            return error

    def _ask(self, name: str, device: str, started: tuple[WorkerHandle, bool] | WorkerError) -> LoadedWorker:
        """Have a backend loaded by its worker; one that cannot be had does not keep the process."""
        plan = self._context.plan
        answer: Loaded | WorkerError
        if isinstance(started, WorkerError):
            answer = started
        else:
            worker, caches = started
            base, target = name.partition("#")[0], plan.backends[name].target
            try:
                answer = worker.request(Load(base, target, device), plan.time_limit_seconds)
            except WorkerError as error:
                answer = error
            if not isinstance(answer, WorkerError) and answer.available:
                self._compile_caches[name, device] = "empty" if caches else "filled"
                return worker, answer
        # It will be no different for the next case: do not ask again.
        self._context.workers.discard(name, device)
        return None, answer
