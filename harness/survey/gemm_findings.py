"""Whether each library multiplies as fast as this CPU can: pure functions of the facts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from harness.survey.facts import CORETYPE_VARIABLE, Facts
from harness.survey.finding import NOTE, OK, WARNING, Finding
from harness.survey.machine_findings import disturbances

if TYPE_CHECKING:
    from harness.timing.roofline import Product

#: Least share of the multiply-add peak for a GEMM of a few thousand rows. With the right kernels it reaches 80 to 95 %.
PRODUCT_SHARE: Final = 0.6
#: Least share of the best library's rate: kernels for another CPU cost a third and more.
LIBRARY_SHARE: Final = 0.7
#: Least ratio by which other kernels must be faster to be advised; the best of a few products varies by less.
LEAST_GAIN: Final = 1.1
#: Vector instructions, each up to twice as fast as the one before; FMA comes with AVX2. A CPU that splits the widest in
#: two (AVX-512 on Zen 4) gains nothing from it, so a measured rate overrides this order.
VECTORS: Final = ("SSE", "AVX", "AVX2", "AVX-512")
#: Vector instructions of OpenBLAS's kernels, by their names in dynamic.c and getarch.c; others are not judged.
OPENBLAS_VECTORS: Final = {
    **dict.fromkeys(("prescott", "core2", "penryn", "dunnington", "nehalem", "atom", "nano", "bobcat"), "SSE"),
    **dict.fromkeys(("athlon", "opteron", "opteron_sse3", "barcelona"), "SSE"),
    **dict.fromkeys(("sandybridge", "bulldozer", "piledriver", "steamroller"), "AVX"),
    **dict.fromkeys(("haswell", "zen", "excavator"), "AVX2"),
    **dict.fromkeys(("skylakex", "cooperlake", "sapphirerapids"), "AVX-512"),
}
#: The most general kernels of OpenBLAS for the widest vectors, with the CPU flags that they need.
CORETYPES: Final = (
    ("SKYLAKEX", "AVX-512", frozenset({"avx512f", "avx512dq", "avx512bw", "avx512vl"})),
    ("HASWELL", "AVX2", frozenset({"avx2", "fma"})),
)
#: Topic of the findings that may advise a variable.
KERNELS_TOPIC: Final = "BLAS kernels"
#: MKL itself, not MKL-DNN, the old name of oneDNN.
_MKL: Final = re.compile(r"\bMKL\b(?!-DNN)")
_OPENBLAS: Final = re.compile(r"\bOpenBLAS\b", re.IGNORECASE)


def blas_kernels(facts: Facts) -> list[Finding]:
    """Judge whether OpenBLAS uses the CPU's widest vectors; a release older than the CPU falls back to narrower ones.

    Narrower vectors are a warning, unless the measured rate shows that they do no harm; a rate from a disturbed machine
    shows nothing.
    """
    quiet = not disturbances(facts)
    coretype, widest = next(((name, vectors) for name, vectors, needs in CORETYPES if needs <= facts.flags), ("", ""))
    findings = []
    for detail, measured in _openblas(facts):
        product = measured if quiet else None
        used = next((OPENBLAS_VECTORS[word] for word in detail.lower().split() if word in OPENBLAS_VECTORS), None)
        if used is None or not widest:
            continue
        reached = "" if product is None else f": {_rate(product, facts)} in {product.dtype}"
        if VECTORS.index(used) >= VECTORS.index(widest):
            findings.append(Finding(OK, KERNELS_TOPIC, f"{detail} uses {used}{reached}", ""))
            continue
        why = f"{CORETYPE_VARIABLE} is {facts.coretype}" if facts.coretype else "its own choice"
        saw = f"{detail} uses {used}, this CPU has {widest} ({why}){reached}"
        findings.append(Finding(_kernels_level(product, facts), KERNELS_TOPIC, saw, _advice(coretype, product, facts)))
    return findings


def advised_variables(findings: Sequence[Finding]) -> dict[str, str]:
    """Return the environment variables that the findings advise for NumPy's BLAS; empty without such advice."""
    matches = (re.match(r"export (\w+)=(\w+)", one.advice) for one in findings if one.topic == KERNELS_TOPIC)
    return {match[1]: match[2] for match in matches if match}


def mkl_on_amd(facts: Facts) -> list[Finding]:
    """Judge MKL by the best library on an AMD CPU: MKL chooses its kernels by the CPU's vendor, not by its flags."""
    findings: list[Finding] = []
    for product in _products(facts) if not disturbances(facts) else ():
        if not _is_mkl_on_amd(product, facts):
            continue
        saw = f"{product.library} multiplies in {product.dtype} by {product.detail}: {_rate(product, facts)}"
        if (best := _much_better(product, facts)) is None:
            findings.append(Finding(OK, "MKL on AMD", saw, ""))
            continue
        saw = f"{saw}, {product.flop_per_second / best.flop_per_second:.0%} of the best, {best.library}"
        advice = f"prefer {best.library} ({best.detail}) for GEMM: it reached {_rate(best, facts)}"
        findings.append(Finding(WARNING, "MKL on AMD", saw, advice))
    return findings


def slow_products(facts: Facts) -> list[Finding]:
    """Judge each library's float32 GEMM by the CPU's peak, except MKL that ``mkl_on_amd`` warns of.

    On a disturbed machine a low rate is the machine's, and no library is judged.
    """
    if (causes := disturbances(facts)) and _products(facts, "float32"):
        saw = f"no library is judged: its rate was measured while the machine was disturbed ({', '.join(causes)})"
        return [Finding(NOTE, "GEMM", saw, "look again when the machine is quiet")]
    findings = []
    for product in _products(facts, "float32"):
        share = _share(product, facts)
        if share is None or (_is_mkl_on_amd(product, facts) and _much_better(product, facts)):
            continue
        saw = f"{product.library} ({product.detail}) reaches {_rate(product, facts)} in float32"
        if share >= PRODUCT_SHARE:
            findings.append(Finding(OK, "GEMM", saw, ""))
        else:
            advice = "mind it when comparing: backends that rest on this library are held back by it"
            findings.append(Finding(NOTE, "GEMM", saw, advice))
    return findings


def _kernels_level(product: Product | None, facts: Facts) -> str:
    """Return the level of narrower vectors: a note where wider ones gain nothing or the rate is near the peak."""
    if product is None:
        return WARNING
    if tried := _tried(facts, product.dtype):
        return WARNING if _gains(tried, product) else NOTE
    return NOTE if (_share(product, facts) or 0.0) >= PRODUCT_SHARE else WARNING


def _advice(coretype: str, product: Product | None, facts: Facts) -> str:
    """Return the advice to use other kernels, with the rate that they reached if they were tried."""
    setting = f"{CORETYPE_VARIABLE}={coretype}"
    if product is None:
        return f"export {setting}"
    if tried := _tried(facts, product.dtype):
        reached = f"reached {_rate(tried, facts)}"
        return (
            f"export {setting}, which {reached}" if _gains(tried, product) else f"nothing to gain: {setting} {reached}"
        )
    fast = (_share(product, facts) or 0.0) >= PRODUCT_SHARE
    return f"export {setting}, though it is fast as it is" if fast else f"export {setting}"


def _gains(tried: Product, product: Product) -> bool:
    """True if the tried kernels are faster by ``LEAST_GAIN``."""
    return tried.flop_per_second >= LEAST_GAIN * product.flop_per_second


def _is_tried(product: Product) -> bool:
    """True if the product was measured under an advised variable; it supports advice, and is not judged itself."""
    return CORETYPE_VARIABLE in f"{product.library} {product.detail}"


def _products(facts: Facts, dtype: str | None = None) -> list[Product]:
    """Return the products that were measured without an advised variable, of one dtype or of all."""
    measured = facts.peaks.products if facts.peaks else ()
    return [product for product in measured if not _is_tried(product) and dtype in (None, product.dtype)]


def _tried(facts: Facts, dtype: str) -> Product | None:
    measured = facts.peaks.products if facts.peaks else ()
    return next((product for product in measured if _is_tried(product) and product.dtype == dtype), None)


def _is_mkl_on_amd(product: Product, facts: Facts) -> bool:
    return facts.vendor == "AuthenticAMD" and bool(_MKL.search(product.detail))


def _much_better(product: Product, facts: Facts) -> Product | None:
    """Return the best product of that dtype if this one is below ``LIBRARY_SHARE`` of it, else None."""
    best = max(_products(facts, product.dtype), key=lambda one: one.flop_per_second)
    return best if product.flop_per_second < LIBRARY_SHARE * best.flop_per_second else None


def _openblas(facts: Facts) -> list[tuple[str, Product | None]]:
    """Return each OpenBLAS once with its first product, float32 before float64; else those of the thread pools."""
    first: dict[str, Product | None] = {}
    for product in sorted(_products(facts), key=lambda one: one.dtype):
        if _OPENBLAS.search(product.detail):
            first.setdefault(product.detail, product)
    return list(first.items()) or [(detail, None) for detail in facts.kernels]


def _share(product: Product, facts: Facts) -> float | None:
    """Return a product's share of the arithmetic peak of its dtype; None where there is no peak."""
    peak = facts.peaks.arithmetic.get(product.dtype) if facts.peaks else None
    return product.flop_per_second / peak.flop_per_second if peak else None


def _rate(product: Product, facts: Facts) -> str:
    """Return a product's rate as text, with its share of the arithmetic peak if there is one."""
    rate, share = f"{product.flop_per_second / 1e9:,.0f} GFLOP/s", _share(product, facts)
    if facts.peaks is None or share is None:
        return rate
    peak = facts.peaks.arithmetic[product.dtype].flop_per_second
    return f"{rate} ({share:.0%} of the peak of {peak / 1e9:,.0f})"
