"""Variables that workers do not get."""

from __future__ import annotations

from harness.machine.variables import passed_on, reasons, withheld


def test_variables_that_bind_threads_are_withheld_and_others_are_not():
    set_here = {"OMP_PLACES": "cores", "OMP_PROC_BIND": "true", "OPENBLAS_CORETYPE": "ZEN", "PATH": "/bin"}
    assert withheld(set_here) == ["OMP_PLACES", "OMP_PROC_BIND"]
    assert passed_on(set_here) == {"OPENBLAS_CORETYPE": "ZEN", "PATH": "/bin"}


def test_reasons_are_given_once_each():
    assert len(reasons(["OMP_PLACES", "OMP_PROC_BIND"])) == 1
    assert len(reasons(["OMP_PLACES", "PYTHONWARNINGS"])) == 2
    assert reasons([]) == []
