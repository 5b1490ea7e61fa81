"""The gate's checks as pytest tests, for authors of a backend.

In a test module of the backend's own project::

    from harness.conformance import parametrize_with_checks
    from my_package import MyBackend

    @parametrize_with_checks(MyBackend)
    def test_my_backend_conforms(backend, check):
        check(backend)

Each check becomes a test whose name is a sentence. It asks what ``bilinear-bench check`` asks, by the same code. It
runs in this process, so that a debugger can follow and an exception keeps its traceback. The idea is scikit-learn's
``parametrize_with_checks``.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.backend import EntryPointError, require_backend
from harness.case import MODES, Case, Mode
from harness.correctness import edge_cases
from harness.correctness.questions import SCENARIOS, Question, unseen
from harness.correctness.verdict import Verdict
from harness.machine.usage import Usage
from harness.process.protocol import Handlers, ReplyT, Request
from harness.run.cell import Cell
from harness.run.checker import Checker
from harness.run.edge_case_pool import EdgeCaseFindings, EdgeCaseQuestions
from harness.run.reference_cache import ReferenceCache
from harness.worker.backend_worker import BackendWorker
from harness.worker.reference_worker import ReferenceWorker

if TYPE_CHECKING:
    import pytest

    from harness.backend import Backend

#: Sizes of the checks of values and conduct: nn.Bilinear's own example, one row, and odd ones.
SIZES: Final = ((128, 20, 30, 40), (1, 32, 32, 16), (33, 65, 17, 5))
DTYPES: Final = ("float32", "float64")
#: Input sets of each check: some scenarios put the values of the second into the memory of the first.
_INPUT_SETS: Final = 2
#: No time limit is enforced in this process.
_NO_LIMIT: Final = 0.0

_Ask = Callable[[Cell, Checker], None]


@dataclasses.dataclass(frozen=True)
class Check:
    """One promise of a backend, and how to see whether it is kept.

    Attributes:
        sentence: What a right backend does.
        case: The case that the backend is asked with.
        verdicts: Asks; returns every verdict.
        device: Device of the backend.
        require: True if a backend that is not available here fails; else it is skipped.
    """

    sentence: str
    case: Case
    verdicts: Callable[[type[Backend], str, Case], list[Verdict]]
    device: str = "cpu"
    require: bool = False

    @property
    def name(self) -> str:
        """The sentence with mode and case, as a test is named."""
        return f"{self.sentence} [{self.case.mode}, {self.case.name}]"

    def __call__(self, backend: type[Backend]) -> None:
        """Check a backend.

        Raises:
            AssertionError: The backend does not keep the promise; says how.
            pytest.fail.Exception: The backend is not available here, and required.
            pytest.skip.Exception: It is not available here, or does not support the case.
        """
        import pytest

        if not (available := backend.available(self.device)).ok:
            if self.require:
                pytest.fail(f"{backend.name} is not available on {self.device}: {available.reason}", pytrace=False)
            pytest.skip(available.reason)
        if not (supported := backend(self.device).supports(self.case)).ok:
            pytest.skip(supported.reason)
        refusals = [verdict for verdict in self.verdicts(backend, self.device, self.case) if not verdict.ok]
        assert not refusals, f"{backend.name}: {refusals[0].probe}: {refusals[0].reason}"  # noqa: S101  # it is a test


def checks(
    device: str = "cpu", modes: Iterable[Mode] = MODES, dtypes: Iterable[str] = DTYPES, seed: int = 0
) -> list[Check]:
    """Return all checks for a device, modes and dtypes."""
    return [
        dataclasses.replace(check, device=device)
        for mode in modes
        for dtype in dtypes
        for check in (*_edge_case_checks(mode, dtype, seed), *_case_checks(mode, dtype, seed))
    ]


def parametrize_with_checks(
    *backends: type[Backend],
    device: str = "cpu",
    modes: Iterable[Mode] = MODES,
    dtypes: Iterable[str] = DTYPES,
    require: bool = False,
) -> pytest.MarkDecorator:
    """Parametrise a test with the arguments ``backend`` and ``check``.

    A backend that is not available on the device is skipped; with ``require``, as in CI, it fails.

    Raises:
        pytest.Collector.CollectError: A class is no backend, or PyTorch is missing: one error in place of a failure of
            each check.
    """
    import pytest

    if importlib.util.find_spec("torch") is None:
        raise pytest.Collector.CollectError("the checks compare with nn.Bilinear, which needs torch: pip install torch")
    for backend in backends:
        try:
            require_backend(backend)
        except EntryPointError as error:
            raise pytest.Collector.CollectError(str(error)) from None
    asked = [dataclasses.replace(check, require=require) for check in checks(device, modes, dtypes)]
    pairs = [(backend, check) for backend in backends for check in asked]
    names = [f"{backend.name}: {check.name}" for backend, check in pairs]
    return pytest.mark.parametrize(("backend", "check"), pairs, ids=names)


def _edge_case_checks(mode: Mode, dtype: str, seed: int) -> Iterator[Check]:
    asked = Case(1, 1, 1, 1, dtype=dtype, mode=mode, seed=seed)
    sentences = {edge_case.name: (edge_case.sentence, edge_case.case) for edge_case in edge_cases.all_edge_cases(asked)}
    sentences["operators"] = ("it computes by itself, and does not call nn.Bilinear", asked)
    if mode == "forward_backward":
        sentences["gradcheck"] = ("the gradients are those of the output, by finite differences", asked)
    for name, (sentence, case) in sentences.items():

        def verdicts(backend: type[Backend], device: str, case: Case, name: str = name) -> list[Verdict]:
            findings = _edge_case_findings(backend, device, asked).verdicts
            return [findings[name]] if name in findings else []

        yield Check(sentence, case, verdicts)


def _case_checks(mode: Mode, dtype: str, seed: int) -> Iterator[Check]:
    asks: dict[str, _Ask] = {
        "results are arrays of the right type, dtype, device and shape, in memory of their own": _only_prepare,
        f"rounding errors are those of {dtype}, and within the textbook bound": _judge_first,
        **{scenario.sentence: functools.partial(_run_scenario, scenario) for scenario in SCENARIOS},
        "inputs stay as they are, and so does what was returned, bit for bit": _finish,
        unseen(mode).sentence: _check_again,
    }
    for batch, in1, in2, out in SIZES:
        case = Case(batch, in1, in2, out, dtype=dtype, mode=mode, seed=seed)
        for sentence, ask in asks.items():
            yield Check(sentence, case, functools.partial(_asked, ask))


def _only_prepare(cell: Cell, checker: Checker) -> None:
    """Ask no more: preparing has been judged already."""


def _judge_first(cell: Cell, checker: Checker) -> None:
    checker.judge_first(cell)


def _run_scenario(scenario: Question, cell: Cell, checker: Checker) -> None:
    if checker.ask(cell, scenario):
        checker.judge(cell, scenario)


def _finish(cell: Cell, checker: Checker) -> None:
    for scenario in SCENARIOS:
        _run_scenario(scenario, cell, checker)
    checker.finish_scenarios(cell)


def _check_again(cell: Cell, checker: Checker) -> None:
    checker.check_again(cell, [_INPUT_SETS])
    checker.judge_check(cell, _INPUT_SETS)


def _asked(ask: _Ask, backend: type[Backend], device: str, case: Case) -> list[Verdict]:
    """Prepare the case, ask, and return all verdicts."""
    with _in_this_process(backend, device) as (worker, reference_cache):
        cell = Cell(backend.name, worker)
        checker = Checker(case, device, reference_cache, _NO_LIMIT)
        checker.prepare(cell, _INPUT_SETS)
        if not cell.gate.refused:
            ask(cell, checker)
        if not cell.going:
            raise AssertionError(cell.reason)
        return cell.gate.verdicts


@functools.lru_cache(maxsize=16)
def _edge_case_findings(backend: type[Backend], device: str, asked: Case) -> EdgeCaseFindings:
    """Return the findings of all edge cases, which run once for all checks."""
    with _in_this_process(backend, device) as (worker, reference_cache):
        return EdgeCaseQuestions(asked, backend.name, device, worker, reference_cache, _NO_LIMIT).findings()


@contextmanager
def _in_this_process(backend: type[Backend], device: str) -> Iterator[tuple[_Local, ReferenceCache]]:
    """Provide a backend and a reference in this process, and a folder that is deleted afterwards."""
    with tempfile.TemporaryDirectory(prefix="bilinear-bench-conformance-") as folder:
        worker = BackendWorker()
        worker.hold(backend(device))
        reference = _Local(ReferenceWorker().handlers, Path(folder) / "reference")
        local = _Local(worker.handlers, Path(folder) / "backend")
        yield local, ReferenceCache(lambda device: reference, _NO_LIMIT)


class _Local:
    """A worker's handlers in this process, as a ``WorkerHandle``."""

    def __init__(self, handlers: Handlers, directory: Path) -> None:
        self.directory = directory
        self.elapsed_seconds = 0.0
        self.usage: Sequence[Usage] = ()
        self.alive = True
        self._handlers = handlers
        directory.mkdir()

    def request(self, request: Request[ReplyT], time_limit_seconds: float) -> ReplyT:
        """Return the handler's reply; an exception of the backend keeps its traceback."""
        start = time.monotonic()
        reply: ReplyT = self._handlers[type(request)](request)  # type: ignore[assignment]  # its handler replies to it
        self.elapsed_seconds = time.monotonic() - start
        return reply

    def kill(self) -> None:
        """Do no more than note it: there is no process to end."""
        self.alive = False


__all__: Sequence[str] = ("Check", "checks", "parametrize_with_checks")
