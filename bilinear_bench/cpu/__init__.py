"""The fused CPU kernels: forward, gradients of both inputs, gradient of the weight; float32 and float64.

Every kernel has a plan: how sizes are divided among threads and caches. ``plan(sizes, threads).run(...)`` computes.
"""
