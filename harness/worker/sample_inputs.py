"""Fill the input sets with the values of a sample, right before it, and prepare what is written before each call.

Arrays of known frameworks on a CPU are written through their memory: the same code for all, a few ten ns a write, and
without the framework, some of whose arrays cannot be written to. Any other arrays keep their values within a sample.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from harness.correctness.conduct import same_bits
from harness.worker import integrity
from harness.worker.arrays import framework, to_host

if TYPE_CHECKING:
    import numpy.typing as npt

    from harness.backend import NativeArray
    from harness.correctness.sample_values import SampleValues
    from harness.timing.clock import Writes
    from harness.worker.calls import NativeArrays
    from harness.worker.prepared_case import PreparedCase

    HostArray = npt.NDArray[np.floating]


class SampleInputs:
    """The values of one sample in the input sets of a prepared case.

    Args:
        prepared: The prepared case; its input sets hold the values in rotation.
        values: The values of the sample.

    Attributes:
        values: The values of the sample.
        changing: True if rows change before each call.
        last: Number of the last call, counted through all passes; None before ``fill``.
    """

    def __init__(self, prepared: PreparedCase, values: SampleValues) -> None:
        self.values = values
        self.last: int | None = None
        self._prepared = prepared
        self._owners: list[NativeArray] = []  # of memory that rows are written from
        self._memories = [{name: memory_of(array) for name, array in inputs.items()} for inputs in prepared.sets]
        known = (*self._memories[0].values(), memory_of(prepared.arrays.like))
        self.changing = all(memory is not None for memory in known)
        self._fills = [self._fill_of(number) for number in range(len(self._memories))]
        by_set = [self._writes_of(number) for number in range(len(self._memories))] if self.changing else []
        #: What is written before each call.
        self.writes: list[Writes] = [
            by_set[(values.first + call) % len(by_set)][call % values.count]
            for call in range(values.calls if self.changing else 0)
        ]

    def fill(self) -> None:
        """Write the values as the sample begins; where arrays cannot be written to, the calls get others."""
        for number, fill in enumerate(self._fills):
            self._prepared.sets[number] = fill()
        if not self.changing:
            self._prepared.bind()
        self._fills = []
        self.last = -1

    def put(self, number: int, last: int) -> NativeArrays:
        """Write the values that an input set had in a call, and return its arrays."""
        inputs = self.values.inputs(number, last, self._rotating(number), self.changing)
        return self._write(number, inputs)

    def restore(self) -> list[str]:
        """Write the values in rotation; return the names of inputs that no longer held what the sample wrote."""
        changed: list[str] = []
        if self.last is None:
            return changed
        for number, arrays in enumerate(self._prepared.sets):
            expected = self.values.inputs(number, self.last, self._rotating(number), self.changing)
            for name, array in arrays.items():
                if not same_bits(to_host(array, self._prepared.arrays.backend), expected[name]):
                    changed.append(f"{name} of input set {number} in a timed sample")
        self.last = None
        self.reset()
        return changed

    def reset(self) -> None:
        """Write the values in rotation."""
        for number in range(len(self._prepared.sets)):
            self._prepared.sets[number] = self._write(number, self._rotating(number))
        if not self.changing:
            self._prepared.bind()

    def _rotating(self, number: int) -> dict[str, HostArray]:
        return dict(self._prepared.arrays.values(self._prepared.arrays.inputs, number))

    def _fill_of(self, number: int) -> Callable[[], NativeArrays]:
        """Return what fills an input set; all but copying is done now."""
        arrays, sets = self._prepared.arrays, self._prepared.sets
        begin = {name: self.values.begin(name, number, array) for name, array in self._rotating(number).items()}
        if not self.changing:
            return lambda: arrays.write(sets[number], begin)
        sources = {name: self._source(array) for name, array in begin.items()}

        def fill() -> NativeArrays:
            for name, memory in self._memories[number].items():
                if memory is not None:
                    memory[:] = sources[name][1]
            return sets[number]

        return fill

    def _writes_of(self, number: int) -> list[Writes]:
        """Return what each change writes into an input set."""
        writes: list[list[tuple[memoryview, memoryview]]] = [[] for _ in self.values.rows]
        for name, array in self._rotating(number).items():
            memory = self._memories[number][name]
            if memory is None or not memory.nbytes:
                continue
            owner, source = self._source(self.values.changed_rows(name, number, array))
            self._owners.append(owner)
            size = memory.nbytes // len(array)
            for change, changed in enumerate(self.values.written(name)):
                if self.values.whole:
                    begin = change * memory.nbytes
                    writes[change].append((memory, source[begin : begin + memory.nbytes]))
                    continue
                for place, row in enumerate(changed.tolist()):
                    begin = (change * len(changed) + place) * size
                    writes[change].append((memory[row * size : (row + 1) * size], source[begin : begin + size]))
        return list(writes)

    def _source(self, values: HostArray) -> tuple[NativeArray, memoryview]:
        """Return a new array of the framework that has these values, and its memory."""
        array = self._prepared.arrays.place(values.reshape(len(values), -1))
        self._prepared.wait(array)
        memory = memory_of(array)
        if memory is None:
            raise RuntimeError(f"the memory of {integrity.type_name(array)} is unknown")
        return array, memory

    def _write(self, number: int, values: dict[str, HostArray]) -> NativeArrays:
        """Write values into an input set, and return its arrays."""
        inputs = self._prepared.sets[number]
        if not self.changing:
            return self._prepared.arrays.write(inputs, values)
        for name, memory in self._memories[number].items():
            owner, source = self._source(values[name])
            if memory is not None:
                memory[:] = source
            del owner
        return inputs


def memory_of(array: NativeArray) -> memoryview | None:
    """Return the memory of an array of a known framework on a CPU, as bytes that can be written; None of any other."""
    device = integrity.describe(array).device
    if framework(array) in (None, "cupy") or device != "cpu":
        return None
    place = integrity.storage(array)
    if not place.size:
        return memoryview(b"")
    return np.ctypeslib.as_array((ctypes.c_uint8 * place.size).from_address(place.start)).data
