"""Findings on the libraries' products, from facts."""

from __future__ import annotations

import pytest
from fit_machine import AVX2, AVX512, FIT, machine, only, peaks, product

from harness.survey.doctor import diagnose
from harness.survey.finding import NOTE, OK, WARNING
from harness.survey.gemm_findings import advised_variables, blas_kernels, mkl_on_amd, slow_products


@pytest.mark.parametrize("kernels", ["Haswell", "Zen", "Sandybridge", "Nehalem"])
def test_openblas_kernels_for_an_older_cpu_are_a_warning(kernels):
    finding = only(blas_kernels(machine(peaks=peaks(product("numpy", 95, f"OpenBLAS 0.3.30 {kernels}")))))
    assert finding.level == WARNING
    assert finding.advice == "export OPENBLAS_CORETYPE=SKYLAKEX"
    assert "95 GFLOP/s (48% of the peak of 200)" in finding.saw


@pytest.mark.parametrize(
    ("kernels", "flags", "level"),
    [
        ("SkylakeX", AVX512, OK),
        ("Cooperlake", AVX512, OK),
        ("Haswell", AVX2, OK),
        ("Zen", AVX2, OK),
        ("Sandybridge", AVX2, WARNING),
        # Knights Landing has AVX-512, but not what these kernels need.
        ("Haswell", AVX2 | {"avx512f"}, OK),
    ],
)
def test_kernels_are_judged_by_the_cpus_vectors(kernels, flags, level):
    findings = blas_kernels(machine(flags=flags, peaks=peaks(product("numpy", 95, f"OpenBLAS 0.3.30 {kernels}"))))
    assert only(findings).level == level


@pytest.mark.parametrize("detail", ["OpenBLAS 0.3.30 Cortex", "MKL 2024.2", "a BLAS that does not say its name"])
def test_unknown_kernels_are_not_judged(detail):
    assert blas_kernels(machine(peaks=peaks(product("numpy", 1, detail)))) == []


def test_advice_has_the_rate_of_tried_kernels():
    usual = product("numpy", 95, "OpenBLAS 0.3.30 Haswell")
    tried = product("numpy with OPENBLAS_CORETYPE=SKYLAKEX", 160, "OpenBLAS 0.3.30 SkylakeX")
    finding = only(blas_kernels(machine(peaks=peaks(usual, tried))))
    assert finding.level == WARNING
    assert finding.advice == ("export OPENBLAS_CORETYPE=SKYLAKEX, which reached 160 GFLOP/s (80% of the peak of 200)")


def test_tried_kernels_that_gain_nothing_are_not_advised():
    usual = product("numpy", 95, "OpenBLAS 0.3.30 Haswell")
    tried = product("numpy with OPENBLAS_CORETYPE=SKYLAKEX", 104, "OpenBLAS 0.3.30 SkylakeX")
    finding = only(blas_kernels(machine(peaks=peaks(usual, tried))))
    assert finding.level == NOTE
    assert finding.advice.startswith("nothing to gain")
    assert advised_variables([finding]) == {}


@pytest.mark.parametrize(("gigaflop", "level"), [(119, WARNING), (121, NOTE)])
def test_older_kernels_near_the_peak_are_a_note(gigaflop, level):
    # As AVX2 does on Zen 4, which splits AVX-512 in two.
    findings = blas_kernels(machine(peaks=peaks(product("numpy", gigaflop, "OpenBLAS 0.3.30 Haswell"))))
    assert only(findings).level == level
    assert advised_variables(findings) == {"OPENBLAS_CORETYPE": "SKYLAKEX"}


def test_advice_names_its_variables():
    slow = machine(peaks=peaks(product("numpy", 95, "OpenBLAS 0.3.30 Haswell")))
    assert advised_variables(diagnose(slow)) == {"OPENBLAS_CORETYPE": "SKYLAKEX"}
    assert advised_variables(diagnose(FIT)) == {}


def test_set_coretype_is_named_as_the_cause():
    slow = peaks(product("numpy", 95, "OpenBLAS 0.3.30 Haswell"))
    assert "OPENBLAS_CORETYPE is Haswell" in only(blas_kernels(machine(peaks=slow, coretype="Haswell"))).saw


def test_one_openblas_is_judged_once_in_float32():
    products = [product("numpy", 9, "OpenBLAS 0.3.30 Haswell", dtype) for dtype in ("float64", "float32")]
    assert "in float32" in only(blas_kernels(machine(peaks=peaks(*products)))).saw


@pytest.mark.parametrize(("kernels", "level"), [("Haswell", WARNING), ("SkylakeX", OK)])
def test_without_products_the_pools_kernels_are_judged(kernels, level):
    assert only(blas_kernels(machine(kernels=(f"OpenBLAS 0.3.30 {kernels}",)))).level == level


MKL, ONEDNN = "MKL 2024.2", "oneDNN 3.7.1"


@pytest.mark.parametrize(("gigaflop", "level"), [(90, WARNING), (130, OK)])
def test_mkl_on_amd_is_a_warning_if_another_library_is_faster(gigaflop, level):
    products = product("torch.mm", gigaflop, MKL), product("torch oneDNN", 180, ONEDNN)
    finding = only(mkl_on_amd(machine(vendor="AuthenticAMD", peaks=peaks(*products))))
    assert finding.level == level
    assert f"{gigaflop} GFLOP/s" in finding.saw
    if level == WARNING:
        assert finding.advice.startswith("prefer torch oneDNN (oneDNN 3.7.1) for GEMM")


def test_mkl_is_not_compared_across_dtypes_nor_with_tried_kernels():
    products = (
        product("torch.mm", 90, MKL, "float64"),
        product("torch oneDNN", 180, ONEDNN),
        product("numpy with OPENBLAS_CORETYPE=SKYLAKEX", 180, "OpenBLAS", "float64"),
    )
    assert only(mkl_on_amd(machine(vendor="AuthenticAMD", peaks=peaks(*products)))).level == OK


@pytest.mark.parametrize(("vendor", "detail"), [("GenuineIntel", MKL), ("AuthenticAMD", "MKL-DNN 2.0")])
def test_mkl_on_intel_and_mkl_dnn_are_not_judged(vendor, detail):
    products = product("torch.mm", 90, detail), product("numpy", 180, "OpenBLAS 0.3.30 SkylakeX")
    assert mkl_on_amd(machine(vendor=vendor, peaks=peaks(*products))) == []


@pytest.mark.parametrize(("gigaflop", "level"), [(119, NOTE), (121, OK)])
def test_library_far_below_the_peak_is_a_note(gigaflop, level):
    finding = only(slow_products(machine(peaks=peaks(product("jax", gigaflop, "XLA")))))
    assert finding.level == level
    assert f"{gigaflop} GFLOP/s" in finding.saw
    assert "of the peak of 200" in finding.saw


def test_product_is_judged_in_float32_with_a_peak_only():
    assert slow_products(FIT) == []
    assert slow_products(machine(peaks=peaks(product("jax", 1, "XLA"), float32=None))) == []
    assert slow_products(machine(peaks=peaks(product("jax", 1, "XLA", "float64")))) == []
    tried = product("numpy with OPENBLAS_CORETYPE=SKYLAKEX", 1, "OpenBLAS")
    assert slow_products(machine(peaks=peaks(tried))) == []


def test_mkl_with_a_warning_gets_no_note():
    products = product("torch.mm", 90, MKL), product("torch oneDNN", 180, ONEDNN)
    findings = diagnose(machine(vendor="AuthenticAMD", peaks=peaks(*products)))
    assert [finding.topic for finding in findings if "torch.mm" in finding.saw] == ["MKL on AMD"]
