"""What the outside package tests: everything that the gate asks, one test each."""

from bilinear_outside import OutsideMatmul

from harness.conformance import parametrize_with_checks


@parametrize_with_checks(OutsideMatmul)
def test_the_backend_conforms(backend, check):
    check(backend)
