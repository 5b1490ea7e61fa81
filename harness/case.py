"""The case: one point to measure, and the text that names it.

Axis glossary, used everywhere: ``b`` batch, ``i`` in1_features, ``j`` in2_features, ``o`` out_features.
The operator is ``torch.nn.Bilinear``: ``y[b,o] = sum_ij input1[b,i] weight[o,i,j] input2[b,j] + bias[o]``.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Final, Literal, Self

Mode = Literal["forward", "forward_backward"]

MODES: Final[tuple[Mode, ...]] = ("forward", "forward_backward")
#: What the command line calls the modes.
MODE_NAMES: Final[dict[str, Mode]] = {
    "forward": "forward",
    "step": "forward_backward",
    "train": "forward_backward",
    "forward_backward": "forward_backward",
}
#: Bytes of one element, by the dtype's name.
DTYPES: Final[dict[str, int]] = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}
#: ``ieee``: products in the case's own dtype. ``tf32``: operands may be rounded to 10 mantissa bits (float32 only).
PRECISIONS: Final[tuple[str, ...]] = ("ieee", "tf32")

_SPECIFICATION = "BATCHxIN1xIN2xOUT[:float64|:float16|:bfloat16][:tf32][:nobias], as in 2708x512x512x1:float64"


class CaseError(ValueError):
    """A case that cannot exist. The message has the value, the expected values and what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """One frozen point to measure.

    Attributes:
        batch: Rows b of both inputs: the product of all leading dimensions. Zero is allowed, but only checked.
        in1_features: Columns i of ``input1``, at least 1.
        in2_features: Columns j of ``input2``, at least 1.
        out_features: Pages o of ``weight``, (out, in1, in2). Zero is allowed, but only checked.
        dtype: Element type of inputs, parameters and output; a key of ``DTYPES``.
        precision: Precision of the products; one of ``PRECISIONS``.
        bias: True if there is a bias vector (out,).
        mode: ``forward`` (inference, the weights do not change) or ``forward_backward`` (one training step).
        seed: Seed of the inputs.

    Raises:
        CaseError: A size, dtype, precision or mode that nn.Bilinear or this harness does not have.
    """

    batch: int
    in1_features: int
    in2_features: int
    out_features: int
    dtype: str = "float32"
    precision: str = "ieee"
    bias: bool = True
    mode: Mode = "forward"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("batch", 0), ("in1_features", 1), ("in2_features", 1), ("out_features", 0)):
            size = getattr(self, name)
            if size < least:
                raise CaseError(f"{name} is {size}, expected at least {least} (nn.Bilinear has no smaller one)")
        for name, known in (("dtype", tuple(DTYPES)), ("precision", PRECISIONS), ("mode", MODES)):
            if getattr(self, name) not in known:
                raise CaseError(f"{name} is {getattr(self, name)!r}, expected one of: {', '.join(known)}")
        if self.precision == "tf32" and self.dtype != "float32":
            raise CaseError(f"tf32 is a way to multiply float32 numbers, the case's dtype is {self.dtype}: drop one")

    @property
    def name(self) -> str:
        """Return the text that ``--case`` takes: everything but mode and seed."""
        sizes = f"{self.batch}x{self.in1_features}x{self.in2_features}x{self.out_features}"
        dtype = "" if self.dtype == "float32" else f":{self.dtype}"
        precision = "" if self.precision == "ieee" else f":{self.precision}"
        return sizes + dtype + precision + ("" if self.bias else ":nobias")

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Return batch, in1_features, in2_features, out_features."""
        return self.batch, self.in1_features, self.in2_features, self.out_features

    @property
    def empty(self) -> bool:
        """True if there is nothing to compute, and so nothing to time."""
        return self.batch == 0 or self.out_features == 0

    @property
    def itemsize(self) -> int:
        """Return the bytes of one element."""
        return DTYPES[self.dtype]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the inputs, by the operator's names; ``grad_output`` only in ``forward_backward``."""
        shapes: dict[str, tuple[int, ...]] = {
            "input1": (self.batch, self.in1_features),
            "input2": (self.batch, self.in2_features),
            "weight": (self.out_features, self.in1_features, self.in2_features),
        }
        if self.bias:
            shapes["bias"] = (self.out_features,)
        if self.mode == "forward_backward":
            shapes["grad_output"] = (self.batch, self.out_features)
        return shapes

    def result_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the results: ``output``, and in ``forward_backward`` a gradient of each input."""
        shapes: dict[str, tuple[int, ...]] = {"output": (self.batch, self.out_features)}
        if self.mode == "forward_backward":
            inputs = self.shapes()
            shapes |= {
                f"grad_{name}": inputs[name] for name in ("input1", "input2", "weight", "bias") if name in inputs
            }
        return shapes

    @property
    def result_bytes(self) -> int:
        """Return the bytes of all results."""
        return self.itemsize * sum(math.prod(shape) for shape in self.result_shapes().values())

    def with_mode(self, mode: Mode) -> Case:
        """Return the same case in another mode."""
        return dataclasses.replace(self, mode=mode)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``2708x512x512x1[:float64][:tf32][:nobias]``.

        Raises:
            CaseError: The text is not of that form, or a size is not positive.
        """
        sizes, *options = text.strip().split(":")
        if not re.fullmatch(r"-?[0-9]{1,99}(x-?[0-9]{1,99}){3}", sizes):
            raise CaseError(f"case {text!r} does not read as {_SPECIFICATION}")
        batch, in1, in2, out = (int(size) for size in sizes.split("x"))
        if min(batch, in1, in2, out) < 1:
            raise CaseError(f"case {text!r} has a size below 1, expected four positive sizes: {_SPECIFICATION}")
        values: dict[str, str] = {}
        for option in options:
            if option in DTYPES:
                key, value = "dtype", option
            elif option in PRECISIONS:
                key, value = "precision", option
            elif option == "nobias":
                key, value = "bias", ""
            else:
                raise CaseError(f"case {text!r} has the unknown option {option!r}, expected {_SPECIFICATION}")
            if key in values:
                raise CaseError(f"case {text!r} gives its {key} twice")
            values[key] = value
        return cls(
            batch,
            in1,
            in2,
            out,
            dtype=values.get("dtype", "float32"),
            precision=values.get("precision", "ieee"),
            bias="bias" not in values,
        )
