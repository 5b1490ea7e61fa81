"""``python -m harness`` is ``bilinear-bench``."""

from harness.cli import main

main()
