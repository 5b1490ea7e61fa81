"""``python -m bilinear_bench warm``: compile the CPU kernels ahead, as in an image of a container."""

from __future__ import annotations

import argparse
import time

from bilinear_bench import warm


def main() -> None:
    """Compile, and say how long it took; exit with 1 if nothing is compiled or kept."""
    parser = argparse.ArgumentParser(prog="python -m bilinear_bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("warm", help="compile the CPU kernels, or load them from Numba's cache")
    command.add_argument(
        "--dtype", nargs="+", default=["float32", "float64"], metavar="DTYPE",
        choices=["float32", "float64", "float16", "bfloat16"],
        help="of float32, float64, float16 and bfloat16 (default: float32 and float64)",
    )  # fmt: skip
    command.add_argument("--forward-only", action="store_true", help="leave the kernels of the gradients out")
    given = parser.parse_args()
    start = time.monotonic()
    try:
        warm(given.dtype, training=not given.forward_only)
    except (ImportError, RuntimeError) as error:
        parser.exit(1, f"{error}\n")
    from bilinear_bench.cpu.compiled import NOT_KEPT, is_kept  # not at the top: it imports Numba, which may be missing

    kinds = " and ".join(given.dtype)
    print(f"The kernels for {kinds} are compiled, after {time.monotonic() - start:.1f} s.")  # noqa: T201  # the answer
    if not is_kept():
        parser.exit(1, f"{NOT_KEPT}\n")


if __name__ == "__main__":
    main()
