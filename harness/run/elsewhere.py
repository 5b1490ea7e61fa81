"""Whether a run is resumed where it began: times of two machines, or of two sets of versions, do not compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from harness.output.store import Json

#: Keys of ``environment.json`` that have to agree.
_VALUES: Final = (
    "python",
    "system",
    "cpu_model",
    "cpu_count",
    "threads_available",
    "cgroup_cpus",
    "gpus",
    "git_revision",
)
#: Keys with a mapping each, of which every value has to agree.
_MAPPINGS: Final = ("versions", "variables")
#: Keys of a run, not of a place, which stay as they are.
OF_RUN: Final = ("run_id", "plan", "earlier_environments", "differences")


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two environments, each in words; what the earlier one does not say is left out.

    Args:
        then: What ``environment.json`` holds.
        now: What ``environment.describe`` returns here.
    """
    pairs = [(key, then[key], now.get(key)) for key in _VALUES if key in then]
    for key in _MAPPINGS:
        if isinstance(before := then.get(key), Mapping):
            pairs += [(name, before.get(name), now[key].get(name)) for name in sorted({*before, *now[key]})]
    return [f"{name} was {_words(before)}, is {_words(here)}" for name, before, here in pairs if before != here]


def moved(then: Mapping[str, Any], now: Mapping[str, Any], found: list[str]) -> Json:
    """Return the keys of an environment in which a run goes on elsewhere; they keep the earlier environment whole.

    Args:
        then: What ``environment.json`` holds.
        now: What ``environment.describe`` returns here.
        found: What differs.
    """
    earlier = {key: value for key, value in then.items() if key not in OF_RUN}
    return {
        **now,
        "earlier_environments": [*then.get("earlier_environments", ()), earlier],
        "differences": [*then.get("differences", ()), *found],
    }


def _words(value: object) -> str:
    if value is None or value == []:
        return "unknown" if value is None else "none"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
