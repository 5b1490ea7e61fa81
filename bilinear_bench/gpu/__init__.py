"""Fused kernels for a GPU, in Triton; Triton and PyTorch are imported with ``launch`` and ``tuning``."""
