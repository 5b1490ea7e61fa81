"""The doctor's diagnosis: all findings in order, and the advice that is tried."""

from __future__ import annotations

import dataclasses
import json

import pytest
from fit_machine import AVX512, FIT, GPU, levels, machine, peaks, product

from harness.machine.activity import State
from harness.survey import doctor
from harness.survey.facts import Facts
from harness.survey.finding import NOTE, OK, WARNING, Finding


def test_fit_machine_has_no_advice():
    fit = machine(peaks=peaks(product("numpy", 180, "OpenBLAS 0.3.30 SkylakeX")), gpus=(GPU,))
    findings = doctor.diagnose(fit)
    assert set(levels(findings)) == {OK}
    assert not any(finding.advice for finding in findings)


def test_warnings_come_before_notes():
    findings = doctor.diagnose(machine(huge_pages="never", other_runs=1, governors=("powersave",), flags=AVX512))
    assert levels(findings) == sorted(levels(findings), key=[WARNING, NOTE, OK].index)
    assert levels(findings)[:3] == [WARNING, WARNING, NOTE]
    assert all(finding.advice for finding in findings if finding.level != OK)


@pytest.mark.parametrize(
    ("levels", "fit", "verdict"),
    [
        ([OK, OK], True, "Fit to measure: yes."),
        ([NOTE, OK], True, "Fit to measure: yes, with 1 reservation."),
        ([NOTE, NOTE], True, "Fit to measure: yes, with 2 reservations."),
        ([WARNING, NOTE], False, "Fit to measure: no, 1 thing to do."),
        ([WARNING, WARNING, OK], False, "Fit to measure: no, 2 things to do."),
    ],
)
def test_the_verdict_counts_what_is_to_be_done(levels, fit, verdict):
    findings = [Finding(level, "topic", "saw", "") for level in levels]
    assert doctor.is_fit(findings) == fit
    assert doctor.verdict(findings) == verdict


def test_a_loaded_machine_is_blamed_for_its_load_and_no_library_for_it():
    products = [product(library, 20, "MKL 2024.2") for library in ("numpy", "torch", "jax", "numba")]
    busy = machine(load=3.0, vendor="AuthenticAMD", peaks=peaks(*products, product("best", 180, "BLIS 1.0")))
    findings = doctor.diagnose(busy)
    assert [finding.topic for finding in findings if finding.level == WARNING] == ["load"]
    (gemm,) = (finding for finding in findings if finding.topic == "GEMM")
    assert gemm.saw == "no library is judged: its rate was measured while the machine was disturbed (load)"
    quiet = doctor.diagnose(dataclasses.replace(busy, load=0.1))
    assert sum(finding.topic == "MKL on AMD" and finding.level == WARNING for finding in quiet) == 4


def test_findings_are_json():
    as_json = doctor.as_json(doctor.diagnose(FIT))
    assert json.loads(json.dumps(as_json)) == as_json
    assert set(as_json[0]) == {"level", "topic", "saw", "advice"}


def test_unknown_facts_lead_to_no_warning():
    unknown = State(None, None, None, None)
    nothing = {field.name: None for field in dataclasses.fields(Facts)}
    known = {"threads": 1, "siblings": (), "flags": frozenset(), "kernels": (), "governors": (), "gpus": ()}
    known |= {"own_cpu_seconds": 0.0, "before": unknown, "after": unknown, "seconds": 1.0, "other_runs": 0}
    assert WARNING not in levels(doctor.diagnose(Facts(**(nothing | known))))


def diagnosed(monkeypatch, kernels):
    """Diagnose a machine whose NumPy uses these kernels; return the diagnosis and the variables that were tried."""
    requests = []
    measured = peaks(product("numpy", 95, f"OpenBLAS 0.3.30 {kernels}"))

    def products_with(workers, library, variables, limit_seconds):
        requests.append((library, variables))
        return (product("numpy with OPENBLAS_CORETYPE=SKYLAKEX", 160, "OpenBLAS 0.3.30 SkylakeX"),)

    monkeypatch.setattr(doctor.peaks, "measure", lambda *_: measured)
    monkeypatch.setattr(doctor.peaks, "products_with", products_with)
    monkeypatch.setattr(
        doctor.survey_facts, "gather", lambda threads, measured: machine(threads=threads, peaks=measured)
    )
    return doctor.measure_and_diagnose(None, 2, 60.0), requests


def test_advised_variable_is_tried_before_it_is_advised(monkeypatch):
    diagnosis, requests = diagnosed(monkeypatch, "Haswell")
    assert requests == [("numpy", {"OPENBLAS_CORETYPE": "SKYLAKEX"})]
    assert [one.library for one in diagnosis.peaks.products] == ["numpy", "numpy with OPENBLAS_CORETYPE=SKYLAKEX"]
    (advice,) = (one.advice for one in diagnosis.findings if one.topic == "BLAS kernels")
    assert advice == "export OPENBLAS_CORETYPE=SKYLAKEX, which reached 160 GFLOP/s (80% of the peak of 200)"


def test_nothing_is_tried_without_advice(monkeypatch):
    diagnosis, requests = diagnosed(monkeypatch, "SkylakeX")
    assert requests == []
    assert [one.library for one in diagnosis.peaks.products] == ["numpy"]
