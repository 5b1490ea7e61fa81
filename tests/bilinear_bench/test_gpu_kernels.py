"""The Triton kernels without a GPU: correct in the interpreter, and compiled to the expected instructions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from command_line import BRIEF, python
from packaging.version import Version

from harness.case import Case

triton = pytest.importorskip("triton", reason="Triton is not installed")

interprets = pytest.mark.skipif(
    Version(triton.__version__) < Version("3.7") and Version(np.__version__) >= Version("2.4"),
    reason="the interpreter of Triton before 3.7 cannot count loops with NumPy from 2.4 on",
)

#: A program for a process of its own: Triton decides at import whether it interprets.
INTERPRETED = """
import dataclasses, itertools, sys
import numpy as np
import torch
from backends.triton_fused import TritonFused, fused_step
from bilinear_bench.gpu import launch
from bilinear_bench.gpu.launch import Arithmetic, Tile
from bilinear_bench.gpu.tuning import KERNEL_SIZES
from harness.case import Case
from harness.correctness import reference
from harness.correctness.inputs import make_inputs

assert launch.interpreted()
tiles = [Tile(16, 16, 16, 1, 1), Tile(32, 16, 32, 1, 1)]
tiles += [dataclasses.replace(tile, transposed=True) for tile in tiles]
sizes = [(5, 7, 9, 3), (33, 20, 30, 4), (1, 35, 18, 6), (70, 17, 40, 2), (19, 1, 1, 5), (0, 3, 4, 2), (3, 3, 4, 0)]
dtypes = itertools.cycle(["float32", "float64", "float16"])
for each, tile in itertools.product(sizes[int(sys.argv[1]) :: 2], tiles):
    dtype = next(dtypes)
    case = Case(*each, dtype=dtype, mode="forward_backward")
    inputs = make_inputs(case)
    backend = TritonFused("cpu")
    tensors = {name: backend.to_device(array, dtype) for name, array in inputs.items()}
    step = fused_step(dict.fromkeys(KERNEL_SIZES, tile), Arithmetic.of(dtype))
    results = step.forward(*(tensors[name] for name in ("input1", "input2", "weight", "bias"))),
    results += step.backward(tensors["grad_output"])
    expected, scales = reference.expected(case, inputs), reference.scales(case, inputs)
    for name, got in zip(case.result_shapes(), results, strict=True):
        right, scale = expected[name].numpy(), scales[name].numpy()
        assert got.shape == right.shape and str(got.dtype) == f"torch.{dtype}"
        bound = 40 * np.finfo(dtype).eps * scale + np.finfo(dtype).tiny
        assert (np.abs(backend.to_numpy(got) - right) <= bound).all(), (case.name, tile, name)
    print("correct", case.name, tile)

# The sum is rounded once: 2049 + 0.9 rounds to 2050 in float16, but 2049 alone to 2048.
half = lambda *shape: torch.full(shape, 1.0, dtype=torch.float16)
weight = 32 * half(1, 64, 1)
weight[0, 0] = 33
output = launch.forward(half(1, 64), half(1, 1), weight, 0.9 * half(1), tiles[0], Arithmetic.of("float16"))
assert output.item() == 2050, output
print("rounded once")
"""

COMPILED = """
import re
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import triton.language as tl
from bilinear_bench.gpu import kernels
from bilinear_bench.gpu.tuning import candidates

#: Rows of 148 elements begin at multiples of 4 elements.
FEATURES = 148
POINTERS = {"float32": "*fp32", "float64": "*fp64", "float16": "*fp16", "bfloat16": "*bf16"}
ARRAYS = ("input1", "input2", "first", "weight", "bias", "target", "other", "grad_output")
KERNELS = [
    *(kernels.forward_kernel, kernels.forward_of_small_pages_kernel),
    *(kernels.grad_input_kernel, kernels.grad_weight_kernel),
]

def compiled(kernel, dtype, precision, tile, capability):
    total = tl.float64 if dtype == "float64" else tl.float32
    constants = {"ROWS": tile.rows, "COLUMNS": tile.columns, "DEPTH": tile.depth, "ACCUMULATOR": total}
    constants |= {"PRECISION": precision, "HAS_BIAS": True, "ONE_TILE": False, "TRANSPOSED": precision == "tf32"}
    constants |= {"in1": FEATURES, "in2": FEATURES, "contracted": FEATURES, "kept": FEATURES}
    constants |= {"contracted_stride": 1, "kept_stride": FEATURES}
    fixed = {parameter.name for parameter in kernel.params if parameter.is_constexpr}
    constants = {name: value for name, value in constants.items() if name in fixed}
    signature = {name: "constexpr" if name in constants else "i32" for name in kernel.arg_names}
    signature |= {name: POINTERS[dtype] for name in kernel.arg_names if name in ARRAYS}
    places = {name: (kernel.arg_names.index(name),) for name in kernel.arg_names}
    # PyTorch aligns arrays to 16 bytes or more.
    aligned = {places[name]: [["tt.divisibility", 16]] for name in kernel.arg_names if name in ARRAYS}
    source = ASTSource(kernel, signature, {places[name]: value for name, value in constants.items()}, aligned)
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["ptx"]

targets = [(90, "float32", "tf32"), (90, "bfloat16", "ieee"), (80, "bfloat16", "ieee")]
targets += [(90, "float32", "ieee"), (80, "float32", "tf32")]
for capability, dtype, precision in targets[int(sys.argv[1]) :: 2]:
    tile = candidates((64, 64, 64), 2 if dtype == "bfloat16" else 4)[0]
    for kernel in KERNELS:
        text = compiled(kernel, dtype, precision, tile, capability)
        matrix_unit = "mma" in text
        assert matrix_unit == ((dtype, precision) != ("float32", "ieee")), (kernel, dtype, precision, capability)
        assert ("tf32" in text) == (precision == "tf32"), (kernel, dtype, precision, capability)
        # Loads are pipelined though rows are not aligned to 16 elements, because the features are constants. The
        # kernel of small pages has no loop over terms.
        assert "cp.async" in text or "small_pages" in kernel.__name__, (kernel, dtype, precision, capability)
        # Strides are those of input2 first: on Hopper tf32 needs contiguous terms, and 16 bytes are copied at once.
        if (kernel, precision, capability) == (kernels.forward_kernel, "tf32", 90):
            assert set(re.findall("cp.async.c[ag].*?, (0x[0-9a-f]+)[,;]", text)) == {"0x10"}, text
        print("compiled", kernel.__name__, dtype, precision, capability)
"""


def test_tiles_pad_little_and_reuse_much():
    from bilinear_bench.gpu.launch import Tile
    from bilinear_bench.gpu.tuning import candidates

    # 148 features: a tile of 128 columns would waste almost half of its second one.
    first = candidates((16000, 148, 148), 2)[0]
    assert (first.columns, first.depth) in {(64, 32), (32, 32)}
    assert (candidates((4096, 512, 512), 4)[0].rows, candidates((4096, 512, 512), 4)[0].columns) == (128, 128)
    assert candidates((1, 1, 1), 4) == [Tile(16, 16, 16, 1, stages) for stages in (3, 4)]


@pytest.mark.parametrize(
    ("precision", "transposed_first"),
    [("ieee", {"grad_input1"}), ("tf32", {"forward", "grad_input2", "grad_weight"})],
)
def test_float32_tries_contiguous_columns_first_and_tf32_terms(precision, transposed_first):
    from bilinear_bench.gpu.tuning import KERNEL_SIZES, TRIED_OF_OTHER_LAYOUT, Problem, tiles_to_try

    problem = Problem(512, 128, 64, 256, precision=precision, training=True)
    for kernel in KERNEL_SIZES:
        layouts = [tile.transposed for tile in tiles_to_try(problem, kernel)]
        first = kernel in transposed_first
        # Tiles of the other layout come last: the copy may cost more than it gains.
        others = [not first] * TRIED_OF_OTHER_LAYOUT
        assert layouts == [first] * (len(layouts) - TRIED_OF_OTHER_LAYOUT) + others


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_types_are_transposed_only_forward(dtype):
    from bilinear_bench.gpu.tuning import KERNEL_SIZES, Problem, tiles_to_try

    problem = Problem(512, 128, 64, 256, dtype=dtype, training=True)
    layouts = {kernel: {tile.transposed for tile in tiles_to_try(problem, kernel)} for kernel in KERNEL_SIZES}
    assert layouts.pop("forward") == {False, True}
    assert set(map(frozenset, layouts.values())) == {frozenset({False})}


def test_a_tile_that_does_not_fit_is_left_out_and_without_any_it_raises():
    from triton.runtime.errors import OutOfResources

    from bilinear_bench.gpu.tuning import TILES, fastest

    def run(tile):
        if tile in unfit:
            raise OutOfResources(200_000, 100_000, "shared memory")

    unfit = TILES[:2]
    assert fastest(run, TILES[:4], 1) == TILES[2]
    unfit = TILES
    with pytest.raises(OutOfResources, match="shared memory"):
        fastest(run, TILES, 1)


def test_the_fastest_tile_is_taken_whatever_its_place(monkeypatch):
    from bilinear_bench.gpu import tuning

    ran, milliseconds = [], itertools.cycle([3.0, 1.0, 2.0])
    monkeypatch.setattr(tuning, "WARM_UP_SECONDS", 0.0)
    monkeypatch.setattr(tuning, "_milliseconds", lambda call: call() or next(milliseconds))
    assert tuning.fastest(ran.append, tuning.TILES[:3], 3) == tuning.TILES[1]
    # Each tile is compiled first; then the tiles take turns.
    assert ran == list(tuning.TILES[:3]) * (1 + tuning.ROUNDS)


def test_a_case_becomes_the_problem_of_its_sizes_and_types():
    from backends.triton_fused import _problem
    from bilinear_bench.gpu.tuning import Problem

    case = Case(5, 4, 3, 2, precision="tf32", bias=False, mode="forward_backward")
    assert _problem(case) == Problem(5, 4, 3, 2, "float32", "tf32", bias=False, training=True)


#: The half of its work that a program does; the larger sizes and the other targets are for `make slow`.
HALVES = pytest.mark.parametrize("half", [0, pytest.param(1, marks=pytest.mark.slow)])


def run(program: str, half: int, **variables: str) -> list[str]:
    """Return the lines that a program prints."""
    ended = python(program, str(half), **{"TRITON_INTERPRET": "0"} | variables)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


@interprets
@HALVES
def test_interpreted_kernels_are_correct_for_all_sizes_tiles_and_parts(half):
    assert len(run(INTERPRETED, half, TRITON_INTERPRET="1")) == 4 * (4 - half) + 1


@HALVES
def test_kernels_compile_for_ampere_and_hopper_with_tf32_only_on_request(half, tmp_path):
    assert len(run(COMPILED, half, TRITON_CACHE_DIR=str(tmp_path))) == 4 * (3 - half)


@pytest.mark.slow
@interprets
def test_the_interpreted_backend_passes_the_gate_and_is_not_timed(bilinear_bench):
    ended = bilinear_bench(
        *("run", "--backend", "triton-fused", "--device", "cpu", "--mode", "forward", "--case", "7x5x3x11"),
        *("--out", "run", "--budget", "1", *BRIEF),
        TRITON_INTERPRET="1",
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Not timed: triton-fused (Triton's interpreter shows what is computed" in " ".join(ended.stdout.split())
