"""bilinear-bench: check implementations of torch.nn.Bilinear, then time them.

What a backend author needs is here; importing it imports no framework, not even NumPy.
"""

from harness.backend import Backend, Kernel, NativeArray, Step, Support
from harness.case import Case, CaseError, Mode

__all__ = ["Backend", "Case", "CaseError", "Kernel", "Mode", "NativeArray", "Step", "Support"]
