"""Say where and when a run was measured, for the caption of a figure.

Rows come as a data frame with the columns of ``harness.record.Record``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from harness.output import format as form
from harness.output import header

if TYPE_CHECKING:
    import pandas as pd

#: Distributions whose versions a caption has, by device.
VERSIONS: Final = {
    "cpu": ("torch", "numpy", "numba", "jax"),
    "cuda": ("torch", "triton", "cupy-cuda13x", "cupy-cuda12x", "numpy", "numba", "jax"),
}


def caption(records: pd.DataFrame, environment: Mapping[str, Any]) -> str:
    """Return machine, threads, dtypes, versions, run and date.

    Args:
        records: Timed rows of one run.
        environment: What the run's ``environment.json`` holds; what it lacks is left out.
    """
    devices = list(dict.fromkeys(records["device"]))
    known = {name: version for name, version in environment.get("versions", {}).items() if version}
    names = dict.fromkeys(name for device in devices for name in VERSIONS[device])
    threads, run = _each(records["threads"]), str(records["run_id"].iloc[0])
    parts = [
        ", ".join(_machine(device, environment) for device in devices),
        f"{threads} thread{'' if threads == '1' else 's'}" if threads else "",
        _each(records["dtype"]),
        ", ".join(f"{name} {known[name]}" for name in names if name in known),
        f"bilinear-bench {known.get('bilinear-bench', '')}".strip(),
        f"run {run}, {run[:4]}-{run[4:6]}-{run[6:8]}",
    ]
    return form.text("; ".join(part for part in parts if part)) + "."


def _machine(device: str, environment: Mapping[str, Any]) -> str:
    """Return the GPU, or the number of CPUs and their model."""
    if device != "cpu":
        return header.gpus(environment.get("gpus") or ()) or "a GPU"
    count, model = environment.get("cpu_count"), environment.get("cpu_model")
    return " ".join(str(one) for one in (count, "CPUs", model) if one)


def _each(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(form.text(value) for value in values if not form.missing(value)))
