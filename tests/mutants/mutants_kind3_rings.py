"""Kind 3: storage of results comes round again, or a counter wraps."""

import numpy as np
from mutant_bases import Counts
from mutants_by_kind import ByKind


class Ring(ByKind):
    """Returns ``buffers`` buffers of each shape in turn."""

    kind = 3
    buffers = 0

    def __init__(self, device="cpu"):
        super().__init__(device)
        self.turns, self.kept = {}, {}

    def place(self, result):
        """Return a result in the buffer whose turn it is."""
        key = result.shape, result.dtype
        turn = self.turns.get(key, 0)
        self.turns[key] = (turn + 1) % self.buffers
        buffer = self.kept.setdefault((key, turn), np.empty_like(result))
        buffer[...] = result
        return buffer

    def output(self, *given):
        return self.place(super().output(*given))


class RingOf64(Ring):
    """Returns 64 buffers in turn."""

    name = "kind3-ring-of-64"
    buffers = 64


class RingOf256(Ring):
    """Returns parts of one slab, by a counter of eight bits."""

    name = "kind3-slab-of-256"
    buffers = 256

    def place(self, result):
        key = result.shape, result.dtype
        slab = self.kept.setdefault(key, np.empty((self.buffers, *result.shape), result.dtype))
        turn = self.turns[key] = (self.turns.get(key, 0) + 1) % self.buffers
        slab[turn] = result
        return slab[turn]


class RingOf1000(Ring):
    """Returns a thousand buffers in turn, where a result is small."""

    name = "kind3-ring-of-1000"
    buffers = 1000

    def place(self, result):
        return super().place(result) if result.nbytes <= 2**14 else result


class GradientRing(Ring):
    """Returns grad_weight in 48 buffers in turn, and all else in new memory."""

    name = "kind3-ring-of-grad-weights"
    modes = ("forward_backward",)
    buffers = 48

    def output(self, *given):
        return super(Ring, self).output(*given)

    def gradients(self, *given):
        grad_input1, grad_input2, grad_weight, grad_bias = super().gradients(*given)
        return grad_input1, grad_input2, self.place(grad_weight), grad_bias


class Arena(ByKind):
    """Takes results from an arena of a mebibyte, and begins again where it is full."""

    name = "kind3-arena-begins-again"
    kind = 3

    def __init__(self, device="cpu"):
        super().__init__(device)
        self.arena, self.used = np.empty(2**20, np.uint8), 0

    def output(self, *given):
        result = super().output(*given)
        if result.nbytes > self.arena.nbytes // 2:
            return result
        start = self.used if self.used + result.nbytes <= self.arena.nbytes else 0
        self.used = start + result.nbytes
        place = self.arena[start : self.used].view(result.dtype).reshape(result.shape)
        place[...] = result
        return place


class CounterWraps(Counts, ByKind):
    """Returns the right result times two at every 512th call of a kernel."""

    name = "kind3-counter-wraps-at-512"
    kind = 3

    def output(self, *given):
        right = super().output(*given)
        return right * 2 if self.calls % 512 == 0 else right


class RecyclesBases(Ring):
    """Keeps 100 results and hands the oldest one out again, whether it is in use or not."""

    name = "kind3-pool-without-counting"
    buffers = 100

    def gradients(self, *given):
        return tuple(None if array is None else self.place(array) for array in super().gradients(*given))
