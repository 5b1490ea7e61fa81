"""Whatever PyTorch code does with the layer gives what nn.Bilinear gives; and the table of the docs says how."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("numba", reason="numba is not installed")
from torch_features import FEATURES, WORDS, rendered  # noqa: E402  # after the skips

from bilinear_bench import Bilinear, contraction, fused, operator, registered  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "take-it-home.md"

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # PyTorch's own, in torch.jit and the profiler
    pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning"),  # nn.functional.bilinear's under vmap
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),  # PyTorch's own, of its tracers
]


@pytest.fixture
def used(monkeypatch):
    """Return a set that fills with what computes: "kernel" or "PyTorch"."""
    found = set()

    def noting(word, function):
        return lambda *given, **named: (found.add(word), function(*given, **named))[1]

    for module in (fused, contraction):
        for name in ("forward", "gradients"):
            monkeypatch.setattr(module, name, noting("kernel", getattr(module, name)))
    plain = noting("PyTorch", registered.BUILTIN)
    for module in (operator, fused):
        monkeypatch.setattr(module, "BUILTIN", plain)
    monkeypatch.setitem(registered.PLAIN, "bilinear", plain)
    for name in ("grad_inputs", "grad_weight"):
        monkeypatch.setitem(registered.PLAIN, name, noting("PyTorch", registered.PLAIN[name]))
    return found


def assert_same(got, expected):
    """Compare tensors within a nested result by their dtype's tolerance, and all else exactly."""
    if isinstance(expected, torch.Tensor):
        loose = {torch.bfloat16: 0.05, torch.float16: 0.01}.get(expected.dtype)
        limits = {} if loose is None else {"rtol": loose, "atol": loose}
        torch.testing.assert_close(got, expected, equal_nan=True, **limits)
    elif isinstance(expected, dict):
        assert got.keys() == expected.keys()
        for key, one in expected.items():
            assert_same(got[key], one)
    elif isinstance(expected, (list, tuple)):
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)
    else:
        assert got == expected


@pytest.mark.parametrize("feature", FEATURES, ids=str)
def test_a_feature_gives_what_nn_bilinear_gives(feature, used):
    expected = feature.of(torch.nn.Bilinear)
    assert not used
    got = feature.of(Bilinear)
    if feature.ours == "more":
        assert (expected, got > 0) == (0, True)
        return
    assert_same(got, expected)
    if feature.ours == "raises":
        assert "Error" in str(got)
        return
    assert feature.ours == ("falls back" if "PyTorch" in used else "faster" if used else "same")


def test_the_table_names_at_least_forty_features_once_each():
    names = [feature.name for feature in FEATURES]
    assert len(names) >= 40
    assert len(set(names)) == len(names)
    assert {feature.ours for feature in FEATURES} == set(WORDS)


def test_the_page_has_the_table():
    assert rendered() in PAGE.read_text()
