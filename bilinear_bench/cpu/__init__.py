"""The fused CPU kernels: forward, gradients of both inputs, gradient of the weight; in four dtypes.

Every kernel has a plan: how sizes are divided among threads and caches. ``plan(sizes, threads).run(...)`` computes.
"""
