"""Is this machine fit to measure on? What was seen and what to do about it, before any time is spent.

All that judges is a pure function of the facts that ``checkup.gather`` has brought.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from harness.machine.activity import stolen_seconds
from harness.survey.facts import CORETYPE_VARIABLE, Facts

if TYPE_CHECKING:
    from harness.timing.roofline import Product

OK, NOTE, WARNING = "ok", "note", "warning"
LEVELS: Final = (WARNING, NOTE, OK)

#: A GEMM of a few thousand rows reaches 80 to 95 % of the multiply-add peak with the right kernels; below this it has
#: others, or is disturbed.
PRODUCT_SHARE: Final = 0.6
#: The same between libraries: kernels for another CPU cost a third and more.
LIBRARY_SHARE: Final = 0.7
#: Other kernels have to be faster by this ratio to be worth a variable; the best of a few products is not steadier.
LEAST_GAIN: Final = 1.1
#: Threads that others keep busy on average: half a CPU.
LOAD: Final = 0.5
#: The kernel's one-minute load decays by this time, in seconds: a CPU second of ours adds at most 1/60 to it.
LOAD_SECONDS: Final = 60.0
#: Share of the machine's time that the hypervisor may take while nothing is measured: one tick of 10 ms in a second.
STOLEN_SHARE: Final = 0.01
#: Memory is short below this share of all; then the kernel swaps out what is idle, as stopped workers are.
MEMORY_SHARE: Final = 0.1
#: Vector instructions, each up to twice as fast as the one before; FMA comes with AVX2. Where the CPU splits the widest
#: in two (AVX-512 on Zen 4) there is nothing to gain, so a measured rate decides where there is one.
VECTORS: Final = ("SSE", "AVX", "AVX2", "AVX-512")
#: What they are in OpenBLAS, by its names for its kernels (dynamic.c, getarch.c); other kernels are not judged.
OPENBLAS_VECTORS: Final = {
    **dict.fromkeys(("prescott", "core2", "penryn", "dunnington", "nehalem", "atom", "nano", "bobcat"), "SSE"),
    **dict.fromkeys(("athlon", "opteron", "opteron_sse3", "barcelona"), "SSE"),
    **dict.fromkeys(("sandybridge", "bulldozer", "piledriver", "steamroller"), "AVX"),
    **dict.fromkeys(("haswell", "zen", "excavator"), "AVX2"),
    **dict.fromkeys(("skylakex", "cooperlake", "sapphirerapids"), "AVX-512"),
}
#: The most general kernels of OpenBLAS for the widest vectors, with the flags of the CPU that they need.
CORETYPES: Final = (
    ("SKYLAKEX", "AVX-512", frozenset({"avx512f", "avx512dq", "avx512bw", "avx512vl"})),
    ("HASWELL", "AVX2", frozenset({"avx2", "fma"})),
)
#: MKL itself, not MKL-DNN, as oneDNN was called.
_MKL: Final = re.compile(r"\bMKL\b(?!-DNN)")
_OPENBLAS: Final = re.compile(r"\bOpenBLAS\b", re.IGNORECASE)

#: Why a GPU runs below its clock, by bit (nvmlClocksEventReasons in nvml.h). Being idle, and clocks that somebody set
#: (bits 0, 1 and 8), are no such reasons.
GPU_THROTTLES: Final = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "power brake",
}
#: Per cent of its time that a GPU works, from which on somebody uses it: whoever asks keeps it busy a little.
BUSY_PERCENT: Final = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: ``ok``, ``note`` (times mean what they say, but mind it) or ``warning`` (they may not).
        topic: What was looked at, in a word or two.
        saw: What there is, with the numbers.
        advice: What to do; empty where there is nothing to do.
    """

    level: str
    topic: str
    saw: str
    advice: str


def diagnose(facts: Facts) -> list[Finding]:
    """Judge all facts; warnings first, then notes, then what is well."""
    found = [finding for check in CHECKS for finding in check(facts)]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def as_json(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """The findings as JSON can hold them."""
    return [dataclasses.asdict(finding) for finding in findings]


def trial(findings: Sequence[Finding]) -> dict[str, str]:
    """Environment variables that the findings advise for NumPy's BLAS, to be tried; empty without such advice."""
    advised = (re.match(r"export (\w+)=(\w+)", one.advice) for one in findings if one.topic == "BLAS kernels")
    return {found[1]: found[2] for found in advised if found}


# What judges: facts in, findings out.


def blas_kernels(facts: Facts) -> list[Finding]:
    """Does OpenBLAS use the widest vectors that the CPU has? Releases older than a CPU take those of an earlier one.

    A warning, unless the rate shows that it does no harm.
    """
    coretype, widest = next(((name, vectors) for name, vectors, needs in CORETYPES if needs <= facts.flags), ("", ""))
    found = []
    for detail, product in _openblas(facts):
        used = next((OPENBLAS_VECTORS[word] for word in detail.lower().split() if word in OPENBLAS_VECTORS), None)
        if used is None or not widest:
            continue
        reached = "" if product is None else f": {_rate(product, facts)} in {product.dtype}"
        if VECTORS.index(used) >= VECTORS.index(widest):
            found.append(Finding(OK, "BLAS kernels", f"{detail} uses {used}{reached}", ""))
            continue
        why = f"{CORETYPE_VARIABLE} is {facts.coretype}" if facts.coretype else "its own choice"
        saw = f"{detail} uses {used}, this CPU has {widest} ({why}){reached}"
        level, advice = WARNING, f"export {CORETYPE_VARIABLE}={coretype}"
        if product is not None and (tried := _trial(facts, product.dtype)):
            reached = f"reached {_rate(tried, facts)}"
            if tried.flop_per_second >= LEAST_GAIN * product.flop_per_second:
                advice = f"{advice}, which {reached}"
            else:
                level, advice = NOTE, f"nothing to gain: {CORETYPE_VARIABLE}={coretype} {reached}"
        elif product is not None and (_share(product, facts) or 0.0) >= PRODUCT_SHARE:
            level, advice = NOTE, f"{advice}, though it is fast as it is"
        found.append(Finding(level, "BLAS kernels", saw, advice))
    return found


def mkl_on_amd(facts: Facts) -> list[Finding]:
    """Is MKL much slower than the best library? It chooses its kernels by the CPU's vendor, not by what it can do."""
    found = []
    for product in _products(facts):
        if not _is_mkl_on_amd(product, facts):
            continue
        saw = f"{product.library} multiplies in {product.dtype} by {product.detail}: {_rate(product, facts)}"
        if (best := _much_better(product, facts)) is None:
            found.append(Finding(OK, "MKL on AMD", saw, ""))
            continue
        saw = f"{saw}, {product.flop_per_second / best.flop_per_second:.0%} of the best, {best.library}"
        advice = f"prefer {best.library} ({best.detail}) for GEMM: it reached {_rate(best, facts)}"
        found.append(Finding(WARNING, "MKL on AMD", saw, advice))
    return found


def slow_products(facts: Facts) -> list[Finding]:
    """Does each library's float32 GEMM come near to what the CPU can do? MKL that was warned of is not said again."""
    found = []
    for product in _products(facts, "float32"):
        share = _share(product, facts)
        if share is None or (_is_mkl_on_amd(product, facts) and _much_better(product, facts)):
            continue
        saw = f"{product.library} ({product.detail}) reaches {_rate(product, facts)} in float32"
        if share >= PRODUCT_SHARE:
            found.append(Finding(OK, "GEMM", saw, ""))
        else:
            advice = "mind it when comparing: backends that rest on this library are held back by it"
            found.append(Finding(NOTE, "GEMM", saw, advice))
    return found


def thread_budget(facts: Facts) -> list[Finding]:
    """Are the threads of the budget CPUs of our own?"""
    if facts.affinity is None:
        advice = "use Linux, or leave the machine alone and believe no comparison across thread counts"
        return [Finding(NOTE, "threads", "this system has no CPU affinity: the budget cannot be held", advice)]
    allowed, count = len(facts.affinity), facts.cpu_count or len(facts.affinity)
    granted = "" if facts.quota is None else f", the cgroup grants the time of {facts.quota:g}"
    saw = f"budget of {facts.threads}; {allowed} of {count} CPUs allowed{granted}"
    if facts.quota is not None and facts.quota < facts.threads:
        advice = "raise the quota, or choose --threads within it: the kernel stops what exceeds it amid samples"
        return [Finding(WARNING, "threads", saw, advice)]
    if facts.quota is not None and (facts.quota < allowed or facts.quota % 1):
        advice = "bind CPUs instead (as in docker run --cpuset-cpus): a quota counts time on any of them"
        return [Finding(NOTE, "threads", saw, advice)]
    if allowed < count:
        return [Finding(NOTE, "threads", saw, "the other CPUs may be busy: caches, memory and power are shared")]
    return [Finding(OK, "threads", saw, "")]


def core_siblings(facts: Facts) -> list[Finding]:
    """Do threads of the budget share a core?"""
    if facts.affinity is None:
        return []
    if not facts.siblings:
        return [Finding(OK, "cores", f"no two of the budget's {facts.threads} CPUs are known to share a core", "")]
    shared = "; ".join(" and ".join(map(str, group)) for group in facts.siblings)
    advice = "two threads on a core are not twice as fast: allow one CPU of each core (taskset -c), or switch SMT off"
    return [Finding(NOTE, "cores", f"CPUs that share a core: {shared}", advice)]


def frequency_governor(facts: Facts) -> list[Finding]:
    """Does the clock stay up between samples?"""
    if not facts.governors:
        whose = "the host's, as this is a virtual machine" if _virtual(facts) else "not shown by this kernel"
        return [Finding(NOTE, "governor", f"the frequency governor is {whose}", "watch for drift between blocks")]
    slow = [governor for governor in facts.governors if governor != "performance"]
    saw = f"frequency governor: {', '.join(facts.governors)}"
    if slow:
        return [Finding(WARNING, "governor", saw, "sudo cpupower frequency-set -g performance")]
    return [Finding(OK, "governor", saw, "")]


def load(facts: Facts) -> list[Finding]:
    """Does somebody else compute here?"""
    running = min(facts.before.running or 0, facts.after.running or 0)
    others = max(0.0, (facts.load or 0.0) - facts.own_cpu_seconds / LOAD_SECONDS)
    if facts.load is None and facts.after.running is None:
        return []
    saw = f"others: load of {others:.2f} in the last minute, {running} runnable now"
    if running or others > LOAD:
        return [Finding(WARNING, "load", saw, "wait a minute, or stop what computes (see top)")]
    return [Finding(OK, "load", saw, "")]


def steal(facts: Facts) -> list[Finding]:
    """Does the hypervisor take time away?"""
    stolen = stolen_seconds(facts.before, facts.after)
    if stolen is None or not facts.cpu_count:
        return []
    share = stolen / (facts.seconds * facts.cpu_count)
    saw = f"{share:.1%} of the time stolen by the hypervisor while watching for {facts.seconds:.1f} s"
    if share > STOLEN_SHARE:
        return [Finding(WARNING, "steal", saw, "measure at another time, or on a machine with CPUs of its own")]
    return [Finding(OK, "steal", saw, "")]


def swap(facts: Facts) -> list[Finding]:
    """Does memory go to disk?"""
    moved = (facts.after.swapped_bytes or 0) - (facts.before.swapped_bytes or 0)
    if facts.memory_bytes is None or facts.available_bytes is None or facts.swap_used_bytes is None:
        return []
    available, total, used = (
        f"{count / 2**30:,.1f} GiB" for count in (facts.available_bytes, facts.memory_bytes, facts.swap_used_bytes)
    )
    saw = f"{available} of {total} available, {used} in swap"
    if moved:
        saw = f"{saw}, {moved / 2**20:,.1f} MiB moved while watching"
    short = facts.swap_used_bytes > 0 and facts.available_bytes < MEMORY_SHARE * facts.memory_bytes
    if moved or short:
        return [Finding(WARNING, "swap", saw, "free memory before measuring; then sudo swapoff -a")]
    return [Finding(OK, "swap", saw, "")]


def huge_pages(facts: Facts) -> list[Finding]:
    """Can large arrays have huge pages? Without, address translation is part of what is measured."""
    if facts.huge_pages is None:
        return []
    saw = f"transparent huge pages: {facts.huge_pages}"
    if facts.huge_pages == "never":
        advice = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"
        return [Finding(NOTE, "huge pages", saw, advice)]
    return [Finding(OK, "huge pages", saw, "")]


def virtual_machine(facts: Facts) -> list[Finding]:
    """Is the machine shared with neighbours that cannot be seen?"""
    if not _virtual(facts):
        return [Finding(OK, "hardware", "no sign of a hypervisor", "")]
    saw = "a virtual machine: neighbours can slow it down unseen, and real clocks are not visible"
    return [Finding(NOTE, "hardware", saw, "trust ratios of one run; repeat it at another time before publishing")]


def other_runs(facts: Facts) -> list[Finding]:
    """Does another run of this harness measure here?"""
    if facts.other_runs:
        saw = f"{facts.other_runs} other run(s) of this harness on this machine"
        return [Finding(WARNING, "other runs", saw, "let one end before the next begins: each spoils the other")]
    return [Finding(OK, "other runs", "no other run of this harness", "")]


def gpus(facts: Facts) -> list[Finding]:
    """Is each GPU cool, ours alone, and awake? Nothing where there is none."""
    found = []
    for number, gpu in enumerate(facts.gpus):
        topic = f"GPU {number}"
        clocks = f"{_or_unknown(gpu.clock_mhz)} of {_or_unknown(gpu.most_mhz)} MHz"
        causes = [cause for bit, cause in GPU_THROTTLES.items() if (gpu.reasons or 0) & bit]
        findings = []
        if causes:
            saw = f"{gpu.name}: {clocks}, held back by {', '.join(causes)}"
            findings.append(Finding(WARNING, topic, saw, "let it cool, or see nvidia-smi -q -d PERFORMANCE"))
        if gpu.others or (gpu.utilization or 0) >= BUSY_PERCENT:
            saw = f"{gpu.name}: {gpu.others} other process(es) on it, {_or_unknown(gpu.utilization)} % busy"
            findings.append(Finding(WARNING, topic, saw, "stop what uses it (see nvidia-smi), or choose another one"))
        if gpu.persistent is False:
            saw = f"{gpu.name}: persistence mode is off, so the driver is loaded anew for each first process"
            findings.append(Finding(NOTE, topic, saw, "sudo nvidia-smi -pm 1"))
        found += findings or [Finding(OK, topic, f"{gpu.name}: {clocks}, idle", "")]
    return found


CHECKS: Final[tuple[Callable[[Facts], list[Finding]], ...]] = (
    *(other_runs, load, steal, swap, thread_budget, core_siblings, frequency_governor, blas_kernels, mkl_on_amd),
    *(slow_products, gpus, huge_pages, virtual_machine),
)


def _virtual(facts: Facts) -> bool:
    return "hypervisor" in facts.flags


def _is_trial(product: Product) -> bool:
    """Whether OpenBLAS was told what to use; such a product advises, and is not judged."""
    return CORETYPE_VARIABLE in f"{product.library} {product.detail}"


def _products(facts: Facts, dtype: str | None = None) -> list[Product]:
    """What was measured with libraries as they are."""
    given = facts.peaks.products if facts.peaks else ()
    return [product for product in given if not _is_trial(product) and dtype in (None, product.dtype)]


def _trial(facts: Facts, dtype: str) -> Product | None:
    given = facts.peaks.products if facts.peaks else ()
    return next((product for product in given if _is_trial(product) and product.dtype == dtype), None)


def _is_mkl_on_amd(product: Product, facts: Facts) -> bool:
    return facts.vendor == "AuthenticAMD" and bool(_MKL.search(product.detail))


def _much_better(product: Product, facts: Facts) -> Product | None:
    """The best product of that dtype, if this one comes nowhere near to it."""
    best = max(_products(facts, product.dtype), key=lambda one: one.flop_per_second)
    return best if product.flop_per_second < LIBRARY_SHARE * best.flop_per_second else None


def _openblas(facts: Facts) -> list[tuple[str, Product | None]]:
    """Each OpenBLAS once, with its first product (float32 if there is one); those of ``kernels`` without products."""
    found: dict[str, Product | None] = {}
    for product in sorted(_products(facts), key=lambda one: one.dtype):
        if _OPENBLAS.search(product.detail):
            found.setdefault(product.detail, product)
    return list(found.items()) or [(detail, None) for detail in facts.kernels]


def _share(product: Product, facts: Facts) -> float | None:
    peak = facts.peaks.arithmetic.get(product.dtype) if facts.peaks else None
    return product.flop_per_second / peak.flop_per_second if peak else None


def _rate(product: Product, facts: Facts) -> str:
    """A product's rate beside the arithmetic peak of its dtype."""
    rate, share = f"{product.flop_per_second / 1e9:,.0f} GFLOP/s", _share(product, facts)
    if facts.peaks is None or share is None:
        return rate
    peak = facts.peaks.arithmetic[product.dtype].flop_per_second
    return f"{rate} ({share:.0%} of the peak of {peak / 1e9:,.0f})"


def _or_unknown(value: int | None) -> str:
    return "?" if value is None else str(value)
