"""Variables that switch a compiler off, or its optimisation: the times would be those of an interpreter.

Coverage tools, debuggers and profilers set them for every process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Final

#: Values that leave a switch where it is, in lower case.
_NO: Final = ("", "0", "false", "no", "off", "n", "f")
#: Flags of XLA that switch its optimisation or its threads off.
_XLA: Final = re.compile(
    r"--xla_(backend_optimization_level=0|disable_all_hlo_passes(?!=(false|0))|disable_hlo_passes="
    r"|llvm_disable_expensive_passes(?!=(false|0))|cpu_multi_thread_eigen=(false|0))"
)


def _yes(value: str) -> bool:
    return value.strip().lower() not in _NO


def _zero(value: str) -> bool:
    return value.strip() == "0"


def _xla(value: str) -> bool:
    return _XLA.search(value) is not None


#: Variables of each package that compiles, with the values that switch something off.
_SWITCHES: Final[Mapping[str, Mapping[str, Callable[[str], bool]]]] = {
    "numba": {
        **dict.fromkeys(("NUMBA_DISABLE_JIT", "NUMBA_BOUNDSCHECK", "NUMBA_DEBUG", "NUMBA_DEBUGINFO"), _yes),
        **dict.fromkeys(("NUMBA_OPT", "NUMBA_LOOP_VECTORIZE"), _zero),
    },
    "jax": {
        **dict.fromkeys(("JAX_DISABLE_JIT", "JAX_DISABLE_MOST_OPTIMIZATIONS"), _yes),
        "XLA_FLAGS": _xla,
    },
}


def switched_off(packages: Collection[str], environment: Mapping[str, str]) -> str:
    """Return the variable that switches the compiler of one of these packages off; empty if none does.

    Args:
        packages: Names of the packages that a backend requires.
        environment: Variables of this process, which workers get.
    """
    for package in packages:
        for name, off in _SWITCHES.get(package, {}).items():
            if name in environment and off(environment[name]):
                return f"{name} switches {package}'s compiler or its optimisation off: unset it"
    return ""
