"""Bilinear layers to take home: the layer, its operator and its kernels."""
