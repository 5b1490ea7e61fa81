"""Is this machine fit to measure on? Measures its peaks, judges its facts, and tries the advice that can be tried."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from harness.survey import facts as survey_facts
from harness.survey import peaks
from harness.survey.facts import Facts
from harness.survey.finding import LEVELS, NOTE, WARNING, Finding
from harness.survey.gemm_findings import advised_variables, blas_kernels, mkl_on_amd, slow_products
from harness.survey.machine_findings import (
    core_siblings,
    frequency_governor,
    gpus,
    huge_pages,
    load,
    other_runs,
    steal,
    swap,
    thread_budget,
    virtual_machine,
    withheld_variables,
)

if TYPE_CHECKING:
    from harness.process.supervisor import WorkerPool
    from harness.timing.roofline import Peaks

#: Every judgement of the facts, in the order of the findings of one level.
CHECKS: Final[tuple[Callable[[Facts], list[Finding]], ...]] = (
    *(other_runs, load, steal, swap, thread_budget, core_siblings, frequency_governor, blas_kernels, mkl_on_amd),
    *(slow_products, gpus, huge_pages, virtual_machine, withheld_variables),
)


class Diagnosis(NamedTuple):
    """The peaks of a machine, products under advised variables included, and all findings."""

    peaks: Peaks
    findings: list[Finding]


def measure_and_diagnose(workers: WorkerPool, threads: int, limit_seconds: float) -> Diagnosis:
    """Measure the CPU's peaks and judge the machine; measure NumPy's products again under the variables it advises.

    Args:
        workers: Starts and ends the processes.
        threads: Thread budget, which the workers are held to.
        limit_seconds: Time limit of each request, in seconds.
    """
    measured = peaks.measure(workers, threads, limit_seconds)
    findings = diagnose(survey_facts.gather(threads, measured))
    if variables := advised_variables(findings):
        tried = peaks.products_with(workers, "numpy", variables, limit_seconds)
        measured = dataclasses.replace(measured, products=(*measured.products, *tried))
        findings = diagnose(survey_facts.gather(threads, measured))
    return Diagnosis(measured, findings)


def diagnose(facts: Facts) -> list[Finding]:
    """Return the findings of all checks: warnings first, then notes, then what is well."""
    findings = [finding for check in CHECKS for finding in check(facts)]
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def is_fit(findings: Sequence[Finding]) -> bool:
    """True if no finding is a warning: times mean what they say."""
    return all(finding.level != WARNING for finding in findings)


def verdict(findings: Sequence[Finding]) -> str:
    """Return the last line of the diagnosis: whether the machine is fit to measure on, and the number of remedies."""
    warnings, notes = (sum(finding.level == level for finding in findings) for level in (WARNING, NOTE))
    if warnings:
        return f"Fit to measure: no, {warnings} thing{'s' if warnings > 1 else ''} to do."
    return f"Fit to measure: yes{f', with {notes} reservation' + 's' * (notes > 1) if notes else ''}."


def as_json(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """Return the findings as JSON can hold them."""
    return [dataclasses.asdict(finding) for finding in findings]
