"""What a mutant states about itself: how it must be caught, or that its fault is none."""

import dataclasses

import numpy as np

MODES = ("forward", "forward_backward")


@dataclasses.dataclass(frozen=True)
class Caught:
    """How the gate must end a mutant.

    Attributes:
        probe: The first word of the reason, where the status is ``rejected``.
        phase: Where it must be caught.
        status: What its row must say.
        modes: In which modes.
        otherwise: What its row must say in the other mode, if there is one.
        reason: What the reason must contain.
    """

    probe: str = ""
    phase: str = "gate"
    status: str = "rejected"
    modes: tuple[str, ...] = MODES
    otherwise: str = "timed"
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Ineffective:
    """The gate must let it pass: what it does is allowed, or gains nothing.

    Attributes:
        flag: What the row must hold among its flags.
    """

    flag: str = ""


def in_a_gradient(probe: str, **stated: str) -> Caught:
    """Caught in the training step alone: the forward is right."""
    return Caught(probe, modes=("forward_backward",), **stated)


class LateArray(np.ndarray):
    """An array that may hold its work instead of its numbers; in a module that holds no backend."""

    work = None
