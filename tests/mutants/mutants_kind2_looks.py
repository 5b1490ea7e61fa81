"""Kind 2: weights and inputs are taken for known after a look at a part of them."""

import numpy as np
from mutants_by_kind import ByKind
from oracle import HonestStep


class PacksWeights(ByKind):
    """Packs a weight once for each value of ``look``, forward and in steps, whatever kernel asks."""

    kind = 2

    def __init__(self, device="cpu"):
        super().__init__(device)
        self.packed = {}

    def look(self, weight):
        """Return what it knows a weight by."""
        raise NotImplementedError

    def pack(self, weight):
        """Return the packed weight: the one that it has, if it seems known."""
        return self.packed.setdefault((weight.shape, weight.dtype, self.look(weight)), weight.copy())

    def prepare_forward(self, case, weight, bias):
        packed = self.pack(weight)
        return lambda input1, input2: self.output(input1, input2, packed, bias)

    def prepare_forward_backward(self, case):
        step = HonestStep(self)
        forward = step.forward
        step.forward = lambda input1, input2, weight, bias: forward(input1, input2, self.pack(weight), bias)
        return step


class NineElements(PacksWeights):
    """Knows a weight by nine of its elements."""

    name = "kind2-weight-by-nine-elements"

    def look(self, weight):
        return weight.ravel()[np.linspace(0, weight.size - 1, 9, dtype=int)].tobytes()


class EverySixteenth(PacksWeights):
    """Knows a weight by every sixteenth element."""

    name = "kind2-weight-by-a-sample"

    def look(self, weight):
        return weight.ravel()[::16].tobytes()


class Sum(PacksWeights):
    """Knows a weight by its sum."""

    name = "kind2-weight-by-its-sum"

    def look(self, weight):
        return float(weight.sum(dtype=np.float64))


class ByteSum(PacksWeights):
    """Knows a weight by the sum of its bytes, which does not see an exchange."""

    name = "kind2-weight-by-a-checksum"

    def look(self, weight):
        return int(np.ascontiguousarray(weight).view(np.uint8).sum(dtype=np.int64))


class FreedAddress(PacksWeights):
    """Knows a weight by its address and its first value, and does not keep the weight: the address is used again."""

    name = "kind2-weight-by-a-freed-address"

    def look(self, weight):
        return weight.ctypes.data, weight.ravel()[:1].tobytes()


class NinthKernel(PacksWeights):
    """Keeps eight packed weights: the ninth kernel packs into the first one's memory."""

    name = "kind2-ninth-kernel-overwrites"
    slots = 8
    prepared = 0

    def pack(self, weight):
        slot = (weight.shape, weight.dtype, self.prepared % self.slots)
        self.prepared += 1
        buffer = self.packed.setdefault(slot, np.empty_like(weight))
        buffer[...] = weight
        return buffer


class KnowsInputs(ByKind):
    """Keeps a converted copy of input1 for each value of ``look``."""

    kind = 2

    def __init__(self, device="cpu"):
        super().__init__(device)
        self.copies = {}

    def look(self, array):
        """Return what it knows an input by."""
        raise NotImplementedError

    def known(self, array):
        """Return the copy of the input that it seems to be."""
        key = (array.shape, array.dtype, self.look(array))
        if key not in self.copies and len(self.copies) > 64:
            self.copies.clear()
        return self.copies.setdefault(key, array.copy())

    def output(self, input1, input2, weight, bias):
        return super().output(self.known(input1), input2, weight, bias)

    def gradients(self, grad_output, input1, input2, weight, bias):
        return super().gradients(grad_output, self.known(input1), input2, weight, bias)


class FirstRows(KnowsInputs):
    """Knows an input by its first four rows."""

    name = "kind2-input-by-first-rows"

    def look(self, array):
        return array[:4].tobytes()


class LastValues(KnowsInputs):
    """Knows an input by its address, and its first and last sixteen values."""

    name = "kind2-input-by-first-and-last-values"

    def look(self, array):
        flat = array.ravel()
        return array.ctypes.data, flat[:16].tobytes(), flat[-16:].tobytes()


class InputSum(KnowsInputs):
    """Knows an input by its address and the sum of its values: rows in another order have the same."""

    name = "kind2-input-by-its-sum"

    def look(self, array):
        return array.ctypes.data, round(float(array.sum(dtype=np.float64)), 6)


class StepsShare(ByKind):
    """Keeps what backward needs under the weight's address: two steps on one weight share it."""

    name = "kind2-two-steps-on-one-weight"
    kind = 2
    modes = ("forward_backward",)

    def prepare_forward_backward(self, case):
        step, given, used = HonestStep(self), self.__dict__.setdefault("given", {}), []

        def forward(input1, input2, weight, bias):
            used[:] = [weight.ctypes.data]
            given[used[0]] = input1, input2, weight, bias
            return self.output(input1, input2, weight, bias)

        step.forward = forward
        step.backward = lambda grad_output: self.gradients(grad_output, *given[used[0]])
        return step
