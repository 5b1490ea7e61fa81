"""What an entry point leads to, read without importing it."""

from __future__ import annotations

import sys

import pytest

from harness.catalog.entry_source import LeadsNowhereError, class_of, devices_of, sentence_of

MODULE = '''
"""A module."""
raise AssertionError("imported")
class Kernel:
    """Multiply in one
    go. It is fast.
    """
class Bare:
    name = "bare"
from somewhere import Imported
Later = make()
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Put a package on the path whose import would fail."""
    folder = tmp_path / "peer_package"
    (folder / "deep").mkdir(parents=True)
    for file in ("__init__.py", "deep/__init__.py"):
        (folder / file).write_text("raise AssertionError('imported')\n")
    (folder / "deep" / "kernels.py").write_text(MODULE)
    (folder / "broken.py").write_text("x = 1\nclass Kernel(:\n")
    (folder / "null.py").write_bytes(b"x = 1\0\n")
    (folder / "dynamic.py").write_text("globals()['Kernel'] = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("peer_package.deep.kernels:Kernel", "Multiply in one go."),
        *((f"peer_package.deep.kernels:{name}", None) for name in ("Bare", "Imported", "Later")),
        ("peer_package.dynamic:Kernel", None),
        ("math:sqrt", None),  # compiled: there is no source
        ("backends.numpy_einsum:NumpyEinsum", "np.einsum along a path computed in advance."),
    ],
)
@pytest.mark.usefixtures("package")
def test_the_first_sentence_stands_for_a_class_else_its_target(target, sentence):
    assert sentence_of(target) == (sentence or target)
    assert "peer_package" not in sys.modules


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("no_such_module_here:Kernel", "entry point leads to no module 'no_such_module_here'"),
        ("peer_package.nothing:Kernel", "entry point leads to no module 'peer_package.nothing'"),
        ("peer_package.broken.deeper:Kernel", "entry point leads to no module 'peer_package.broken.deeper'"),
        ("peer_package.deep.kernels:Nothing", "entry point leads to no 'Nothing': kernels.py does not define it"),
        ("peer_package.broken:Kernel", "broken.py is not valid Python: "),
        ("peer_package.null:Kernel", "null.py is not valid Python: "),
    ],
)
@pytest.mark.usefixtures("package")
def test_an_entry_point_that_leads_nowhere_says_where_it_ends(target, words):
    with pytest.raises(LeadsNowhereError) as error:
        class_of(target)
    assert str(error.value).startswith(words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("target", "devices"),
    [
        ("backends.triton_fused:TritonFused", ("cuda",)),
        ("backends.cupy_einsum:CupyEinsum", ("cuda",)),
        ("backends._torch:TorchBackend", ("cpu", "cuda")),
        ("backends.numpy_loop:NumpyLoop", ()),
        ("math:sqrt", ()),
    ],
)
def test_the_devices_that_a_class_writes_down_are_read(target, devices):
    assert devices_of(target) == devices
