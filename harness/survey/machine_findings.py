"""Whether the machine is quiet and its clock steady: pure functions of the facts, in the order of ``doctor.CHECKS``."""

from __future__ import annotations

from typing import Final

from harness.machine.activity import stolen_seconds
from harness.machine.gpu import REASONS
from harness.machine.nvidia_smi import GpuState
from harness.machine.variables import reasons
from harness.survey.facts import Facts
from harness.survey.finding import NOTE, OK, WARNING, Finding

#: Most threads of others that are busy on average: half a CPU.
LOAD: Final = 0.5
#: Time constant of the kernel's one-minute load, in seconds: a CPU second of ours adds at most 1/60 to it.
LOAD_SECONDS: Final = 60.0
#: Largest share of the machine's time that the hypervisor may take in the watch: one tick of 10 ms in a second.
STOLEN_SHARE: Final = 0.01
#: Least share of memory that is available; below it the kernel swaps out idle processes, such as stopped workers.
MEMORY_SHARE: Final = 0.1
#: Least utilization of a GPU that another process causes, in per cent; nvidia-smi itself causes a little.
BUSY_PERCENT: Final = 10


def other_runs(facts: Facts) -> list[Finding]:
    """Judge whether another run of this harness measures here."""
    if facts.other_runs:
        saw = f"{facts.other_runs} other run(s) of this harness on this machine"
        return [Finding(WARNING, "other runs", saw, "let one end before the next begins: each spoils the other")]
    return [Finding(OK, "other runs", "no other run of this harness", "")]


def load(facts: Facts) -> list[Finding]:
    """Judge whether another process computes here."""
    running = min(facts.before.running or 0, facts.after.running or 0)
    others = max(0.0, (facts.load or 0.0) - facts.own_cpu_seconds / LOAD_SECONDS)
    if facts.load is None and facts.after.running is None:
        return []
    saw = f"others: load of {others:.2f} in the last minute, {running} runnable now"
    if facts.busiest:
        saw = f"{saw}: {', '.join(facts.busiest)}"
    if running or others > LOAD:
        return [Finding(WARNING, "load", saw, "wait a minute, or stop what computes (see top)")]
    return [Finding(OK, "load", saw, "")]


def steal(facts: Facts) -> list[Finding]:
    """Judge whether the hypervisor takes time away."""
    stolen = stolen_seconds(facts.before, facts.after)
    if stolen is None or not facts.cpu_count:
        return []
    share = stolen / (facts.seconds * facts.cpu_count)
    saw = f"{share:.1%} of the time stolen by the hypervisor while watching for {facts.seconds:.1f} s"
    if share > STOLEN_SHARE:
        return [Finding(WARNING, "steal", saw, "measure at another time, or on a machine with CPUs of its own")]
    return [Finding(OK, "steal", saw, "")]


def disturbances(facts: Facts) -> list[str]:
    """Return the topics of what takes CPUs away now; where there is one, a rate just measured is too low."""
    found = (*other_runs(facts), *load(facts), *steal(facts))
    return [finding.topic for finding in found if finding.level == WARNING]


def swap(facts: Facts) -> list[Finding]:
    """Judge whether memory is short enough to be swapped out."""
    moved = (facts.after.swapped_bytes or 0) - (facts.before.swapped_bytes or 0)
    if facts.memory_bytes is None or facts.available_bytes is None or facts.swap_used_bytes is None:
        return []
    available, total, used = (
        f"{size_bytes / 2**30:,.1f} GiB"
        for size_bytes in (facts.available_bytes, facts.memory_bytes, facts.swap_used_bytes)
    )
    saw = f"{available} of {total} available, {used} in swap"
    if moved:
        saw = f"{saw}, {moved / 2**20:,.1f} MiB moved while watching"
    short = facts.swap_used_bytes > 0 and facts.available_bytes < MEMORY_SHARE * facts.memory_bytes
    if moved or short:
        return [Finding(WARNING, "swap", saw, "free memory before measuring; then sudo swapoff -a")]
    return [Finding(OK, "swap", saw, "")]


def thread_budget(facts: Facts) -> list[Finding]:
    """Judge whether each thread of the budget has a CPU of its own."""
    if facts.affinity is None:
        advice = "use Linux, or leave the machine alone and believe no comparison across thread counts"
        return [Finding(NOTE, "threads", "this system has no CPU affinity: the budget cannot be held", advice)]
    allowed, count = len(facts.affinity), facts.cpu_count or len(facts.affinity)
    quota = "" if facts.quota is None else f", the cgroup grants the time of {facts.quota:g}"
    saw = f"budget of {facts.threads}; {allowed} of {count} CPUs allowed{quota}"
    if facts.quota is not None and facts.quota < facts.threads:
        advice = "raise the quota, or choose --threads within it: the kernel stops what exceeds it amid samples"
        return [Finding(WARNING, "threads", saw, advice)]
    if facts.quota is not None and (facts.quota < allowed or facts.quota % 1):
        advice = "bind CPUs instead (as in docker run --cpuset-cpus): a quota counts time on any of them"
        return [Finding(NOTE, "threads", saw, advice)]
    if allowed < count:
        return [Finding(NOTE, "threads", saw, "the other CPUs may be busy: caches, memory and power are shared")]
    return [Finding(OK, "threads", saw, "")]


def withheld_variables(facts: Facts) -> list[Finding]:
    """Name the variables that workers do not get; empty without one."""
    if not facts.withheld:
        return []
    saw = f"workers do not get {', '.join(facts.withheld)}: {'; '.join(reasons(facts.withheld))}"
    return [Finding(NOTE, "variables", saw, "measure other programs without them, too")]


def core_siblings(facts: Facts) -> list[Finding]:
    """Judge whether threads of the budget share a core."""
    if facts.affinity is None:
        return []
    if not facts.siblings:
        return [Finding(OK, "cores", f"no two of the budget's {facts.threads} CPUs are known to share a core", "")]
    shared = "; ".join(" and ".join(map(str, group)) for group in facts.siblings)
    advice = "two threads on a core are not twice as fast: allow one CPU of each core (taskset -c), or switch SMT off"
    return [Finding(NOTE, "cores", f"CPUs that share a core: {shared}", advice)]


def frequency_governor(facts: Facts) -> list[Finding]:
    """Judge whether the clock stays up between samples."""
    if not facts.governors:
        whose = "the host's, as this is a virtual machine" if _is_virtual(facts) else "not shown by this kernel"
        return [Finding(NOTE, "governor", f"the frequency governor is {whose}", "watch for drift between blocks")]
    saw = f"frequency governor: {', '.join(facts.governors)}"
    if set(facts.governors) != {"performance"}:
        return [Finding(WARNING, "governor", saw, "sudo cpupower frequency-set -g performance")]
    return [Finding(OK, "governor", saw, "")]


def gpus(facts: Facts) -> list[Finding]:
    """Judge whether each GPU is at full speed, free of other processes, and persistent; empty without a GPU."""
    return [finding for number, gpu in enumerate(facts.gpus) for finding in _one_gpu(f"GPU {number}", gpu)]


def huge_pages(facts: Facts) -> list[Finding]:
    """Judge whether large arrays can have huge pages; without them, times include address translation."""
    if facts.huge_pages is None:
        return []
    saw = f"transparent huge pages: {facts.huge_pages}"
    if facts.huge_pages == "never":
        advice = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"
        return [Finding(NOTE, "huge pages", saw, advice)]
    return [Finding(OK, "huge pages", saw, "")]


def virtual_machine(facts: Facts) -> list[Finding]:
    """Judge whether invisible neighbours share the machine."""
    if not _is_virtual(facts):
        return [Finding(OK, "hardware", "no sign of a hypervisor", "")]
    saw = "a virtual machine: neighbours can slow it down unseen, and real clocks are not visible"
    return [Finding(NOTE, "hardware", saw, "trust ratios of one run; repeat it at another time before publishing")]


def _one_gpu(topic: str, gpu: GpuState) -> list[Finding]:
    clocks = f"{_or_unknown(gpu.clock_mhz)} of {_or_unknown(gpu.max_clock_mhz)} MHz"
    causes = [cause for bit, cause in REASONS.items() if (gpu.reasons or 0) & bit]
    findings = []
    if causes:
        saw = f"{gpu.name}: {clocks}, held back by {', '.join(causes)}"
        findings.append(Finding(WARNING, topic, saw, "let it cool, or see nvidia-smi -q -d PERFORMANCE"))
    if gpu.others or (gpu.utilization or 0) >= BUSY_PERCENT:
        saw = f"{gpu.name}: {gpu.others} other process(es) on it, {_or_unknown(gpu.utilization)} % busy"
        findings.append(Finding(WARNING, topic, saw, "stop what uses it (see nvidia-smi), or choose another one"))
    if gpu.persistent is False:
        saw = f"{gpu.name}: persistence mode is off, so each first process loads the driver again"
        findings.append(Finding(NOTE, topic, saw, "sudo nvidia-smi -pm 1"))
    return findings or [Finding(OK, topic, f"{gpu.name}: {clocks}, idle", "")]


def _is_virtual(facts: Facts) -> bool:
    return "hypervisor" in facts.flags


def _or_unknown(value: int | None) -> str:
    return "?" if value is None else str(value)
