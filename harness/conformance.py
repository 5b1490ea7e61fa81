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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from harness.backend import EntryPointError, require_backend
from harness.case import MODES, Case, Mode
from harness.correctness import edge_cases, promises
from harness.correctness.questions import SCENARIOS, Question, unseen
from harness.correctness.verdict import Verdict
from harness.run.cell import Cell
from harness.run.checker import Checker
from harness.run.edge_case_questions import EdgeCaseQuestions
from harness.run.gate_log import GateLog
from harness.run.in_process import NO_LIMIT, Outcome, cause_of, error_text, in_this_process, refusal_text

if TYPE_CHECKING:
    import pytest

    from harness.backend import Backend

#: Sizes of the checks of values and conduct: nn.Bilinear's own example, one row, and odd ones.
SIZES: Final = ((128, 20, 30, 40), (1, 32, 32, 16), (33, 65, 17, 5))
DTYPES: Final = ("float32", "float64")
#: Input sets of each check: some scenarios put the values of the second into the memory of the first.
_INPUT_SETS: Final = 2

_Ask = Callable[[Cell, Checker], None]


@dataclasses.dataclass(frozen=True)
class Check:
    """One promise of a backend, and how to see whether it is kept.

    Attributes:
        sentence: What a right backend does.
        case: The case that the backend is asked with.
        ask: Asks; returns what the backend replied.
        device: Device of the backend.
        require: True if a backend that is not available here fails; else it is skipped.
    """

    sentence: str
    case: Case
    ask: Callable[[type[Backend], str, Case], Outcome]
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

        __tracebackhide__ = True  # pytest shows the backend's frames, not these
        if not (available := backend.available(self.device)).ok:
            if self.require:
                pytest.fail(f"{backend.name} is not available on {self.device}: {available.reason}", pytrace=False)
            pytest.skip(available.reason)
        if not (supported := backend(self.device).supports(self.case)).ok:
            pytest.skip(supported.reason)
        try:
            outcome = self.ask(backend, self.device, self.case)
        except Exception as error:
            raise AssertionError(error_text(backend, error)) from cause_of(error)
        refusal = GateLog(outcome.verdicts).most_telling_refusal()
        if refusal is not None:
            raise AssertionError(refusal_text(backend, refusal, outcome)) from cause_of(
                outcome.raised.get(refusal.traceback)
            )


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
    further = promises.sentences(asked)
    for name in (promises.OPERATORS, promises.GRADCHECK):
        if name in further:
            sentences[name] = (further[name], asked)
    for name, (sentence, case) in sentences.items():

        def ask(backend: type[Backend], device: str, case: Case, name: str = name) -> Outcome:
            verdicts, outcome = _edge_case_outcome(backend, device, asked)
            return dataclasses.replace(outcome, verdicts=[verdicts[name]] if name in verdicts else [])

        yield Check(sentence, case, ask)


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


def _asked(ask: _Ask, backend: type[Backend], device: str, case: Case) -> Outcome:
    """Prepare the case, ask, and return all verdicts."""
    with in_this_process(backend, device) as (worker, reference_cache):
        cell = Cell(backend.name, worker)
        checker = Checker(case, device, reference_cache, NO_LIMIT)
        checker.prepare(cell, _INPUT_SETS)
        if not cell.gate.refused:
            ask(cell, checker)
        if not cell.going:
            raise AssertionError(cell.reason)
        refusal = cell.gate.most_telling_refusal()
        if refusal is None:
            return Outcome(cell.gate.verdicts)
        return Outcome(cell.gate.verdicts, refusal.hypothesis, worker.located())


@functools.lru_cache(maxsize=16)
def _edge_case_outcome(backend: type[Backend], device: str, asked: Case) -> tuple[Mapping[str, Verdict], Outcome]:
    """Return the verdicts on all edge cases by name, which run once for all checks, and what explains them."""
    with in_this_process(backend, device) as (worker, reference_cache):
        findings = EdgeCaseQuestions(asked, backend.name, device, worker, reference_cache, NO_LIMIT).findings()
        refusal = GateLog(list(findings.verdicts.values())).most_telling_refusal()
        if refusal is None:
            return findings.verdicts, Outcome([])
        return findings.verdicts, Outcome([], refusal.hypothesis, worker.located(), worker.raised)


__all__: Sequence[str] = ("Check", "checks", "parametrize_with_checks")
