# MERGE: the layer's own module replaces this one.
"""The layer."""

from backends.torch_fused import Bilinear as Bilinear
