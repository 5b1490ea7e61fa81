"""Thirty broken plug-ins, as their authors would write them: ten that do not load, and over twenty that are wrong.

Each is a module of its own, written into a folder by ``write``, which is a distribution with their entry points.
"""

from __future__ import annotations

import dataclasses
import textwrap
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Plugin:
    """One plug-in.

    Attributes:
        source: Its module; ``NAME`` stands for the backend's name.
        named: Words of the diagnosis that name the cause; those of the reason for one that does not load.
        mode: Mode in which it is checked.
    """

    source: str
    named: tuple[str, ...]
    mode: str = "forward"

    def module(self, name: str) -> str:
        """Return the text of its module."""
        return textwrap.dedent(self.source).lstrip().replace("NAME", name)


HEAD = """
import numpy as np

from harness.backend import Backend
"""

#: A right backend; what is wrong replaces one of its lines.
RIGHT = """
import numpy as np

from harness.backend import Backend


class Mine(Backend):
    name = "NAME"

    def prepare_forward(self, case, weight, bias):
        def kernel(input1, input2):
            return forward(input1, input2, weight, bias)

        return kernel

    def prepare_forward_backward(self, case):
        return Step()


class Step:
    def forward(self, input1, input2, weight, bias):
        self.saved = input1, input2, weight, bias
        return forward(input1, input2, weight, bias)

    def backward(self, grad_output):
        input1, input2, weight, bias = self.saved
        grad_input1 = np.einsum("bo,oij,bj->bi", grad_output, weight, input2)
        grad_input2 = np.einsum("bo,oij,bi->bj", grad_output, weight, input1)
        grad_weight = np.einsum("bo,bi,bj->oij", grad_output, input1, input2)
        grad_bias = None if bias is None else grad_output.sum(0)
        return grad_input1, grad_input2, grad_weight, grad_bias


def forward(input1, input2, weight, bias):
    output = np.einsum("bi,oij,bj->bo", input1, weight, input2)
    return output if bias is None else output + bias
"""


def changed(*pairs: tuple[str, str]) -> str:
    """Return the right backend with some of its lines replaced."""
    source = RIGHT
    for before, after in pairs:
        assert source.count(before) >= 1, before
        source = source.replace(before, after)
    return source


def constructor(arguments: str, body: str) -> str:
    """Return the right backend with a constructor."""
    method = "    def prepare_forward(self, case, w"
    return changed((method, f"    def __init__({arguments}):\n        {body}\n\n{method}"))


OUTPUT = '    output = np.einsum("bi,oij,bj->bo", input1, weight, input2)\n'
LAST = "    return output if bias is None else output + bias\n"
KERNEL = "            return forward(input1, input2, weight, bias)\n"

LOADING = {
    "no-syntax": Plugin("def broken(:\n    pass\n", ("SyntaxError", "no_syntax.py")),
    "no-module": Plugin("", ("No module named",)),  # its file is not written
    "no-class": Plugin(HEAD, ("no_class", "Mine")),
    "no-package": Plugin("import a_package_that_is_not_there\n", ("a_package_that_is_not_there",)),
    "no-import": Plugin("from numpy import not_there\n", ("not_there",)),
    "exits": Plugin("import sys\n\nsys.exit(0)\n", ("SystemExit", "exit")),
    "raises": Plugin(HEAD + '\nprint("at work")\nraise RuntimeError("no licence")\n', ("no licence",)),
    "no-kind": Plugin(HEAD + '\n\ndef Mine(device):\n    return None\n\n\nMine.name = "NAME"\n', ("Mine",)),
    "abstract": Plugin(HEAD + '\n\nclass Mine(Backend):\n    name = "NAME"\n', ("abstract", "prepare_forward")),
    "other-name": Plugin(changed(('name = "NAME"', 'name = "another"')), ("another",)),
    "raises-when-made": Plugin(
        constructor("self, device", "raise OSError('no device 7')"),
        ("no device 7", "raises_when_made.py:10 __init__"),
    ),
    "takes-no-device": Plugin(
        constructor("self", "self.device = 'cpu'"),
        ("__init__() takes 1 positional argument but 2 were given",),
    ),
}

WRONG = {
    "no-bias": Plugin(changed((LAST, "    return output\n")), ("without the bias",)),
    "bias-by-row": Plugin(
        changed((LAST, "    return output if bias is None else output + np.resize(bias, len(output))[:, None]\n")),
        ("bias added by row",),
    ),
    "bias-by-size": Plugin(
        changed(
            (
                LAST,
                "    if bias is not None and len(bias) == len(output):\n"
                "        bias = bias[:, None]\n"
                "    return output if bias is None else output + bias\n",
            )
        ),
        ("bias added by row",),
    ),
    "layout": Plugin(
        changed(
            (OUTPUT, "    weight = weight.reshape(-1, weight.shape[2], weight.shape[1]).swapaxes(1, 2)\n" + OUTPUT)
        ),
        ("weight read as (out, in2, in1)",),
    ),
    "remainder": Plugin(
        changed(
            (
                OUTPUT,
                "    whole = weight.shape[1] // 4 * 4\n"
                + OUTPUT.replace("input1, weight", "input1[:, :whole], weight[:, :whole]"),
            )
        ),
        ("only the first 4 of the 5 terms along in1",),
    ),
    "mean": Plugin(
        changed((OUTPUT, OUTPUT + "    output /= weight.shape[2]\n")), ("is a mean taken in place of a sum",)
    ),
    "rows-unwritten": Plugin(
        changed(
            (
                LAST,
                "    output = output if bias is None else output + bias\n"
                "    found = np.zeros_like(output)\n"
                "    found[: len(output) // 4 * 4] = output[: len(output) // 4 * 4]\n"
                "    return found\n",
            )
        ),
        ("the last 3 rows", "are they ever written"),
    ),
    "memo": Plugin(
        changed(
            (
                "        def kernel(input1, input2):\n" + KERNEL,
                "        seen = {}\n\n"
                "        def kernel(input1, input2):\n"
                "            key = len(input1)\n"
                "            if key not in seen:\n"
                "                seen[key] = forward(input1, input2, weight, bias)\n"
                "            return seen[key].copy()\n",
            )
        ),
        ("an earlier call", "is an answer kept"),
    ),
    "scales-input": Plugin(
        changed((OUTPUT, "    input1 *= 2\n" + OUTPUT.replace(", input2)", ", input2) / 2"))),
        ("changed its input: input1",),
    ),
    "half": Plugin(
        changed((OUTPUT, "    input1 = input1.astype(np.float16).astype(input1.dtype)\n" + OUTPUT)), ("float16",)
    ),
    "double": Plugin(
        changed((LAST, "    return output + (0.0 if bias is None else bias.astype(np.float64))\n")), ("float64",)
    ),
    "transposed": Plugin(
        changed((LAST, "    return (output if bias is None else output + bias).T\n")), ("is a transpose missing",)
    ),
    "returns-nothing": Plugin(
        changed((KERNEL, "            forward(input1, input2, weight, bias)\n")), ("is there a return",)
    ),
    "prepares-nothing": Plugin(
        changed(("        return kernel\n", "        kernel\n")),
        ("prepare_forward returned None, expected a function of (input1, input2)",),
    ),
    "raises-deep": Plugin(
        changed((OUTPUT, '    output = np.einsum("bi,oij,bj->bo", input1, weight, input2[:, 1:])\n')),
        ("ValueError", "raises_deep.py:34 forward"),
    ),
    "crashes": Plugin(
        changed((OUTPUT, "    import ctypes\n\n    ctypes.string_at(0)\n" + OUTPUT)),
        ("SIGSEGV", "crashes.py:36 forward"),
    ),
    "shared-pack": Plugin(
        changed(
            ("class Mine(Backend):\n", "packed = {}\n\n\nclass Mine(Backend):\n"),
            ("        def kernel(", "        packed[case.name] = weight.copy()\n\n        def kernel("),
            (KERNEL, "            return forward(input1, input2, packed[case.name], bias)\n"),
        ),
        ("packed weight",),
    ),
    "relu": Plugin(changed((LAST, "    return np.maximum(output if bias is None else output + bias, 0)\n")), ("ReLU",)),
    "one-buffer": Plugin(
        changed(
            (
                "        def kernel(input1, input2):\n" + KERNEL,
                "        buffer = np.empty((case.batch, case.out_features), weight.dtype)\n\n"
                "        def kernel(input1, input2):\n"
                "            buffer[...] = forward(input1, input2, weight, bias)\n"
                "            return buffer\n",
            )
        ),
        ("an earlier",),
    ),
    "no-none": Plugin(changed((LAST, "    return output + bias\n")), ("Only cases without a bias", "NoneType")),
    "row-stride": Plugin(
        changed(
            (
                OUTPUT,
                "    pages, rows, columns = weight.shape\n"
                "    memory = np.append(weight, np.zeros(rows * rows, weight.dtype))\n"
                "    strides = [weight.itemsize * step for step in (rows * columns, rows, 1)]\n"
                "    weight = np.lib.stride_tricks.as_strided(memory, weight.shape, strides)\n" + OUTPUT,
            )
        ),
        ("rows of the weight in1 numbers apart", "is a stride wrong"),
    ),
    "zero-shortcut": Plugin(
        changed(
            (
                OUTPUT,
                "    if not input1.any():\n"
                "        return np.zeros((len(input1), len(weight)), weight.dtype)\n" + OUTPUT,
            )
        ),
        ("Only zero inputs are wrong", "leave out the bias"),
    ),
    "quantised": Plugin(
        changed(
            (
                OUTPUT,
                "    step = np.abs(weight).max() / 127 or 1\n"
                "    weight = (np.rint(weight / step) * step).astype(weight.dtype)\n" + OUTPUT,
            )
        ),
        ("weight rounded to 8 bits", "is it quantised"),
    ),
    "symmetric": Plugin(
        changed(
            (
                OUTPUT,
                "    if weight.shape[1] == weight.shape[2]:\n"
                "        weight = (weight + weight.swapaxes(1, 2)) / 2\n" + OUTPUT,
            )
        ),
        ("made symmetric",),
    ),
    "added-inputs": Plugin(
        changed(
            (
                OUTPUT,
                '    output = np.einsum("bi,oij->bo", input1, weight) + np.einsum("bj,oij->bo", input2, weight)\n',
            )
        ),
        ("input1 + input2 in place of their product",),
    ),
    "threshold": Plugin(
        changed(
            (
                LAST,
                "    output = output if bias is None else output + bias\n"
                "    return np.where(np.abs(output) < 1e-2, 0, output).astype(weight.dtype)\n",
            )
        ),
        ("are they taken for zero",),
    ),
    "padded": Plugin(
        changed((LAST, "    return np.pad(output if bias is None else output + bias, ((0, 2), (0, 5)))\n")),
        ("is padding cut off",),
    ),
    "results-in-another-order": Plugin(
        changed(
            ("grad_input1, grad_input2, grad_weight, grad_bias", "grad_weight, grad_bias, grad_input1, grad_input2")
        ),
        ("the shape of grad_weight", "in another order"),
        mode="forward_backward",
    ),
    "sum-along-another-axis": Plugin(
        changed(("grad_output.sum(0)", "grad_output.sum(1)")),
        ("6 is batch: is a sum along another axis",),
        mode="forward_backward",
    ),
    "three-gradients": Plugin(
        changed(
            ("return grad_input1, grad_input2, grad_weight, grad_bias", "return grad_input1, grad_input2, grad_weight")
        ),
        ("backward returned 3 gradients, grad_bias is missing",),
        mode="forward_backward",
    ),
    "gradients-swapped": Plugin(
        changed(("return grad_input1, grad_input2,", "return grad_input2, grad_input1,")),
        ("are the two gradients exchanged",),
        mode="forward_backward",
    ),
    "mean-loss": Plugin(
        changed(("grad_output.sum(0)", "grad_output.mean(0)")), ("1 / batch",), mode="forward_backward"
    ),
    "one-row-gradient": Plugin(
        changed(
            (
                '"bo,bi,bj->oij", grad_output, input1, input2',
                '"bo,bi,bj->oij", grad_output[-1:], input1[-1:], input2[-1:]',
            )
        ),
        ("only the last of the", "is the sum overwritten"),
        mode="forward_backward",
    ),
    "three-arguments": Plugin(
        changed(
            ("def forward(self, input1, input2, weight, bias):", "def forward(self, input1, input2, weight):"),
            (
                "self.saved = input1, input2, weight, bias\n        return forward(input1, input2, weight, bias)",
                "self.saved = input1, input2, weight, None\n        return forward(input1, input2, weight, None)",
            ),
        ),
        ("forward is called with (input1, input2, weight, bias)",),
        mode="forward_backward",
    ),
    "accumulates": Plugin(
        changed(
            (
                "        def kernel(input1, input2):\n" + KERNEL,
                "        total = np.zeros((case.batch, case.out_features), weight.dtype)\n\n"
                "        def kernel(input1, input2):\n"
                "            np.add(total, forward(input1, input2, weight, bias), out=total)\n"
                "            return total.copy()\n",
            )
        ),
        ("plus earlier ones",),
    ),
}

#: The control, which is right.
HONEST = {"is-right": Plugin(RIGHT, ())}
PLUGINS = HONEST | LOADING | WRONG


def module_of(name: str) -> str:
    """Return the name of a plug-in's module."""
    return name.replace("-", "_")


def write(folder: Path) -> None:
    """Write all plug-ins, as a distribution with their entry points."""
    info = folder / "broken-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    points = [f"{name} = {module_of(name)}:Mine" for name in PLUGINS]
    (info / "entry_points.txt").write_text("[bilinear_bench.backends]\n" + "\n".join(points) + "\n")
    for name, plugin in PLUGINS.items():
        if plugin.source:
            (folder / f"{module_of(name)}.py").write_text(plugin.module(name))
