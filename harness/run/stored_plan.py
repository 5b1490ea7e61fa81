"""Write a plan into ``environment.json``, and read it back for ``--resume``; what is read may come from anywhere."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from harness.catalog.registry import select
from harness.output.store import Json, StoreError, environment
from harness.process.protocol import decode
from harness.record import NAME_PATTERN
from harness.run.options import RunOptions
from harness.run.plan import Plan

Held = TypeVar("Held")


def stored(plan: Plan, options: RunOptions) -> Json:
    """Return a plan as ``environment.json`` holds it, for ``--resume``."""
    values = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
    values |= {"cases": [dataclasses.asdict(case) for case in plan.cases], "backends": list(plan.backends)}
    return values | {"options": dataclasses.asdict(options)}


def restore(folder: Path) -> tuple[Plan, RunOptions]:
    """Read a run's plan back.

    Raises:
        StoreError: The folder holds no plan that this version can resume.
    """
    try:
        values = dict(environment(folder)["plan"])
        options = _held(RunOptions, values.pop("options"))
        names = decode(tuple[str, ...], values.pop("backends"))
        plan = _held(Plan, values | {"backends": {}})
        _check_possible(plan)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{folder} holds no plan that this version can resume ({error})") from None
    return dataclasses.replace(plan, backends=select(names)), options


def _held(kind: type[Held], values: Mapping[str, Any]) -> Held:
    """Return a dataclass from JSON, each field held to its type; absent ones have their defaults.

    Raises:
        ValueError: A field is of another type.
        KeyError: There is no such field.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{kind.__name__} is {values!r:.60}, expected a mapping")
    hints = typing.get_type_hints(kind, localns={"Mapping": dict})  # what JSON has for a mapping
    return kind(**{name: decode(hints[name], value) for name, value in values.items()})


def _check_possible(plan: Plan) -> None:
    """Check what the command line has checked of a plan that is new.

    Raises:
        ValueError: A value that no command line gives.
    """
    for name in ("budget_seconds", "target", "band", "processes", "time_limit_seconds"):
        if not 0 < getattr(plan, name) < math.inf:
            raise ValueError(f"{name} is {getattr(plan, name)}, expected a positive number")
    if plan.threads < 1:
        raise ValueError(f"threads are {plan.threads}, expected at least 1")
    if plan.seed < 0 or any(case.seed < 0 for case in plan.cases):
        raise ValueError("a seed is negative")
    if not all(NAME_PATTERN.fullmatch(name) for name in (plan.run_id, plan.suite)):
        raise ValueError(f"run_id {plan.run_id!r:.60} or suite {plan.suite!r:.60} is no name")
    if not 0 < len(plan.devices) == len(set(plan.devices) & {"cpu", "cuda"}):
        raise ValueError(f"devices are {plan.devices!r:.60}, expected cpu, cuda or both")
    if not 0 < len(plan.cases) == len(set(plan.cases)):
        raise ValueError("it has no case, or one twice")
