"""What a mutant states about itself: how it must be caught, or that its fault is none."""

import dataclasses

import numpy as np

MODES = ("forward", "forward_backward")


@dataclasses.dataclass(frozen=True)
class Caught:
    """How the gate must end a mutant.

    Attributes:
        probe: First word of the reason, where the status is ``rejected``.
        phase: Phase in which it is caught; or several, separated by a space, where chance decides.
        status: Status of its row.
        modes: Modes in which it is caught.
        otherwise: Status of its row in the other mode, if there is one.
        reason: Part of the reason.
    """

    probe: str = ""
    phase: str = "gate"
    status: str = "rejected"
    modes: tuple[str, ...] = MODES
    otherwise: str = "timed"
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Ineffective:
    """The gate must let the mutant pass: its oddity is allowed, or gains nothing.

    Attributes:
        flag: One of the flags of its row; "" for any flags.
    """

    flag: str = ""


def in_a_gradient(probe: str, **stated: str) -> Caught:
    """Return that the mutant is caught in the training step alone: its forward is right."""
    return Caught(probe, modes=("forward_backward",), **stated)


class LateArray(np.ndarray):
    """An array that may compute later; this module has no backend, so the type is not a backend's own."""

    work = None
