"""The gate's checks as pytest tests, for whoever writes a backend.

In a test module of the backend's own project::

    from harness.conformance import parametrize_with_checks
    from my_package import MyBackend

    @parametrize_with_checks(MyBackend)
    def test_my_backend_conforms(backend, check):
        check(backend)

Each check becomes a test whose name is a sentence. It asks what ``bilinear-bench check`` asks, by the same code, but in
this process, so that a debugger can follow and an exception keeps its traceback. The idea is scikit-learn's
``parametrize_with_checks``.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness.case import MODES, Case, Mode
from harness.correctness import structure
from harness.correctness.gate import Verdict
from harness.entrant import Entrant
from harness.examination import EXERCISES, Examination, Expectations, Structure, examine
from harness.process.contestant import Contestant
from harness.process.referee import Referee

if TYPE_CHECKING:
    import pytest

    from harness.backend import Backend

#: Sizes that the checks of values and behaviour use: nn.Bilinear's own example, one row, and odd ones.
SIZES: Final = ((128, 20, 30, 40), (1, 32, 32, 16), (33, 65, 17, 5))
DTYPES: Final = ("float32", "float64")
#: Input sets of each check: some exercises put the values of the second into the memory of the first.
_INPUT_SETS: Final = 2

_Ask = Callable[[Entrant, Examination], None]


@dataclasses.dataclass(frozen=True)
class Check:
    """One promise of a backend, and how to see whether it is kept.

    Attributes:
        sentence: What a right backend does.
        case: What it is asked with.
        verdicts: Asks; everything that was found out.
        device: Where.
    """

    sentence: str
    case: Case
    verdicts: Callable[[type[Backend], str, Case], list[Verdict]]
    device: str = "cpu"

    @property
    def name(self) -> str:
        """The sentence with mode and case, as a test is named."""
        return f"{self.sentence} [{self.case.mode}, {self.case.name}]"

    def __call__(self, backend: type[Backend]) -> None:
        """Check a backend.

        Raises:
            AssertionError: It does not keep the promise; says how.
            pytest.skip.Exception: It is not available here, or does not support the case.
        """
        import pytest

        if not (available := backend.available(self.device)).ok:
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
        for check in (*_structure_checks(mode, dtype, seed), *_case_checks(mode, dtype, seed))
    ]


def parametrize_with_checks(
    *backends: type[Backend], device: str = "cpu", modes: Iterable[Mode] = MODES, dtypes: Iterable[str] = DTYPES
) -> pytest.MarkDecorator:
    """Parametrise a test with the arguments ``backend`` and ``check``."""
    import pytest

    asked = checks(device, modes, dtypes)
    cells = [(backend, check) for backend in backends for check in asked]
    names = [f"{backend.name}: {check.name}" for backend, check in cells]
    return pytest.mark.parametrize(("backend", "check"), cells, ids=names)


def _structure_checks(mode: Mode, dtype: str, seed: int) -> Iterator[Check]:
    asked = Case(1, 1, 1, 1, dtype=dtype, mode=mode, seed=seed)
    sentences = {trial.name: (trial.sentence, trial.case) for trial in structure.trials(asked)}
    sentences["operators"] = ("it computes by itself, and does not call nn.Bilinear", asked)
    if mode == "forward_backward":
        sentences["gradcheck"] = ("the gradients are those of the output, by finite differences", asked)
    for name, (sentence, case) in sentences.items():

        def verdicts(backend: type[Backend], device: str, case: Case, name: str = name) -> list[Verdict]:
            found = _examined(backend, device, asked).verdicts
            return [found[name]] if name in found else []

        yield Check(sentence, case, verdicts)


def _case_checks(mode: Mode, dtype: str, seed: int) -> Iterator[Check]:
    asks: dict[str, _Ask] = {
        "results are arrays of the right type, dtype, device and shape, in memory of their own": _only_prepare,
        f"rounding errors are those of {dtype}, and within the textbook bound": _judge_first,
        **{
            sentence: functools.partial(_exercise, what)
            for sentence, what in (
                ("small integers come out exactly, from a second kernel in turn with the first", "another kernel"),
                ("the same inputs again give right results that lie elsewhere", "again"),
                ("new values in the same buffers are seen", "new values in the same buffers"),
                ("the same values in new buffers give right results", "the same values in new buffers"),
            )
        },
        "inputs stay as they are, and so does what was returned, bit for bit": _finish,
        "inputs that no call has seen give right results, in memory that holds garbage": _check_again,
    }
    for sizes in SIZES:
        batch, in1, in2, out = sizes
        case = Case(batch, in1, in2, out, dtype=dtype, mode=mode, seed=seed)
        for sentence, ask in asks.items():
            yield Check(sentence, case, functools.partial(_asked, ask))


def _only_prepare(entrant: Entrant, examination: Examination) -> None:
    """Preparing has been judged already."""


def _judge_first(entrant: Entrant, examination: Examination) -> None:
    examination.judge_first(entrant)


def _exercise(what: str, entrant: Entrant, examination: Examination) -> None:
    if examination.exercise(entrant, what):
        examination.judge_exercise(entrant, what)


def _finish(entrant: Entrant, examination: Examination) -> None:
    for what in EXERCISES:
        _exercise(what, entrant, examination)
    examination.finish_exercises(entrant)


def _check_again(entrant: Entrant, examination: Examination) -> None:
    examination.check_again(entrant, [_INPUT_SETS])
    examination.judge_check(entrant, _INPUT_SETS)


def _asked(ask: _Ask, backend: type[Backend], device: str, case: Case) -> list[Verdict]:
    """Prepare the case, ask, and return all verdicts."""
    with _here(backend, device) as (remote, expectations):
        entrant = Entrant(backend.name, remote)
        examination = Examination(case, device, expectations, 0.0)
        examination.prepare(entrant, _INPUT_SETS)
        if all(verdict.ok for verdict in entrant.verdicts):
            ask(entrant, examination)
        if not entrant.going:
            raise AssertionError(entrant.reason)
        return entrant.verdicts


@functools.lru_cache(maxsize=16)
def _examined(backend: type[Backend], device: str, asked: Case) -> Structure:
    """The structure probe's verdicts, asked for once, however many checks want one of them."""
    with _here(backend, device) as (remote, expectations):
        return examine(asked, backend.name, device, remote, expectations, 0.0)


@contextmanager
def _here(backend: type[Backend], device: str) -> Iterator[tuple[_Local, Expectations]]:
    """A contestant and a reference in this process, and a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bilinear-bench-conformance-") as folder:
        contestant = Contestant()
        contestant.hold(backend(device))
        referee = _Local(Referee().answers, Path(folder) / "reference")
        yield _Local(contestant.answers, Path(folder) / "contestant"), Expectations(_Reference(referee), 0.0)


class _Local:
    """Answers requests in this process, where others ask a worker."""

    def __init__(self, answers: Mapping[str, Callable[..., dict[str, Any]]], directory: Path) -> None:
        self.directory = directory
        self.elapsed_seconds = 0.0
        self.alive = True
        self._answers = answers
        directory.mkdir()

    def request(self, do: str, time_limit_seconds: float, **fields: Any) -> dict[str, Any]:
        """Ask; whatever the backend raises comes out as it is."""
        start = time.monotonic()
        answer = self._answers[do](**fields)
        self.elapsed_seconds = time.monotonic() - start
        return answer

    def kill(self) -> None:
        """There is no process to end."""
        self.alive = False


@dataclasses.dataclass(frozen=True)
class _Reference:
    """All that ``Expectations`` wants of a supervisor."""

    local: _Local

    def referee(self, device: str) -> _Local:
        """Return the reference."""
        return self.local


__all__: Sequence[str] = ("Check", "checks", "parametrize_with_checks")
