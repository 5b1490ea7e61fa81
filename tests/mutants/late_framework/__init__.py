"""An array type that puts off its work, as frameworks with lazy arrays do, in a package that holds no backend."""

import numpy as np


class Late:
    """Says what it will be, and computes once it is copied to the host."""

    device = "cpu"

    def __init__(self, shape, dtype, work):
        self.shape, self.dtype, self.work = shape, np.dtype(dtype), work

    def __array__(self, dtype=None, copy=None):
        return self.work() if dtype is None else self.work().astype(dtype)
