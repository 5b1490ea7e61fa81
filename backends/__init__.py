"""The backends of bilinear-bench: one file, one class, one technique.

Nothing imports this package by name: the harness finds each class through the entry-point group
``bilinear_bench.backends``, as it finds those of a third party.
"""
