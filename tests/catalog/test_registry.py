from __future__ import annotations

import importlib.metadata
import sys

import pytest

from harness.backend import EntryPointError, backend_class, is_requirement
from harness.catalog import registry
from harness.catalog.registry import GROUP, Entry, RegistryError, entries, select
from harness.installed import version


@pytest.fixture
def plant(tmp_path, monkeypatch):
    """Put a distribution with the given entry points, requirements and module text on the path."""

    def plant(points: str, name: str = "peer", requires: str = "", module: str = "raise AssertionError('imported')"):
        site = tmp_path / f"site-{name}"
        info = site / f"{name}-1.5.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n{requires}")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{points}\n")
        (site / f"{name}_module.py").write_text(module)
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, f"{name}_module", raising=False)
        return site

    return plant


@pytest.fixture
def not_installed(monkeypatch):
    """Hide the installed bilinear-bench, as in a checkout that is not installed."""
    real = importlib.metadata.distributions
    others = [found for found in real() if (found.metadata["Name"] or "").lower() != registry.DISTRIBUTION]
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: iter(others))


def test_listing_names_imports_no_backend(plant):
    plant("peer-gemm = peer_module:Gemm")
    entry = entries()["peer-gemm"]
    assert entry == Entry("peer-gemm", "peer_module:Gemm", (), "peer 1.5")
    assert entry.installed()
    assert "peer_module" not in sys.modules
    with pytest.raises(AssertionError, match="imported"):
        backend_class(entry.name, entry.target)


@pytest.mark.parametrize("metadata", [b"Name: numpy\nAuthor: J\xf6rg\nVersion: 9.9\n", b"Name: numpy\n", None])
def test_a_strangers_broken_metadata_of_our_name_is_passed_over(tmp_path, monkeypatch, metadata):
    right = version("numpy")
    info = tmp_path / "numpy-9.9.dist-info"
    info.mkdir()
    if metadata is not None:
        (info / "METADATA").write_bytes(metadata)
    monkeypatch.syspath_prepend(tmp_path)
    assert version("numpy") == right
    assert Entry("a", "a:A", (f"numpy=={right}",), "peer 1").installed()


def test_backends_of_this_project_are_found():
    assert entries()["torch-bilinear"].target == "backends.torch_bilinear:TorchBilinear"
    assert entries()["torch-bilinear"].requirements == ("torch>=2.6",)
    assert list(entries()) == sorted(entries())


@pytest.mark.usefixtures("not_installed")
def test_a_checkout_that_is_not_installed_is_refused_with_the_command():
    with pytest.raises(RegistryError, match=r"not installed, .*: run `pip install -e \.` in its checkout"):
        entries()


def test_a_name_of_two_distributions_is_refused_naming_both(plant):
    plant("same = one_module:A", name="one")
    plant("same = two_module:A", name="two")
    with pytest.raises(RegistryError, match=r"same is registered twice, by (one|two) 1\.5 and by (one|two) 1\.5"):
        entries()


def test_a_distribution_that_is_on_the_path_twice_counts_once(plant, tmp_path, monkeypatch):
    site = plant("peer-gemm = peer_module:Gemm")
    again = tmp_path / "again"
    again.symlink_to(site)
    monkeypatch.syspath_prepend(again)
    assert "peer-gemm" in entries()


def test_the_word_for_every_backend_is_no_name_of_one(plant):
    plant("all = peer_module:Gemm")
    with pytest.raises(RegistryError, match=r"peer 1\.5 registers a backend 'all', which stands for every backend"):
        entries()


@pytest.mark.parametrize("name", ["peer#2", "peer gemm", "../peer"])
def test_a_malformed_name_is_refused_naming_its_distribution(plant, name):
    plant(f"{name} = peer_module:Gemm")
    with pytest.raises(RegistryError, match=r"peer 1\.5 registers a backend with the malformed name"):
        entries()


def test_a_leftover_folder_of_an_uninstalled_package_is_ignored(plant, tmp_path, monkeypatch):
    (tmp_path / "left" / "left-1.0.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path / "left")
    plant("peer-gemm = peer_module:Gemm")
    assert "peer-gemm" in entries()


def test_a_missing_or_old_package_of_an_extra_is_a_reason(plant):
    plant(
        "peer-gone = peer_module:A [gone]\npeer-old = peer_module:B [old]\npeer-both = peer_module:C [fine]",
        requires="Requires-Dist: numpy>=1\n"
        "Requires-Dist: no-such-base>=2; python_version >= '3'\n"
        "Requires-Dist: no-such-package-here>=2; extra == 'gone'\n"
        "Requires-Dist: numpy>=999; extra == 'old'\n"
        "Requires-Dist: numpy>=1; extra == 'fine'\n",
    )
    found = entries()
    gone, old = found["peer-gone"].installed(), found["peer-old"].installed()
    assert (gone.ok, old.ok) == (False, False)
    assert gone.reason == "no-such-package-here is not installed: pip install 'no-such-package-here>=2'"
    assert old.reason == f"numpy {importlib.metadata.version('numpy')} is installed, expected >=999"
    assert found["peer-both"].installed()


@pytest.mark.parametrize("build", ["arrays-cuda12x", "arrays"])
def test_a_build_for_another_cuda_satisfies_a_requirement(plant, build):
    plant("peer-a = peer_module:A [array]", requires="Requires-Dist: arrays-cuda13x>=1; extra == 'array'\n")
    entry = entries()["peer-a"]
    assert entry.installed().reason == "arrays-cuda13x is not installed: pip install 'arrays-cuda13x>=1'"
    plant("other = peer_module:A", name=build)
    assert entry.installed()


def test_a_class_that_is_missing_or_has_another_name_is_refused(plant):
    plant(
        "peer-a = peer_module:A\npeer-b = peer_module:B\npeer-c = peer_module:C",
        module="from oracle import HonestBackend\nclass A(HonestBackend):\n    name = 'peer-a'\n"
        "class B(HonestBackend):\n    name = 'other'\n",
    )
    found = entries()
    assert backend_class("peer-a", found["peer-a"].target).name == "peer-a"
    with pytest.raises(EntryPointError, match="entry point peer-b leads to a class named 'other'"):
        backend_class("peer-b", found["peer-b"].target)
    with pytest.raises(EntryPointError, match="peer_module has no C"):
        backend_class("peer-c", found["peer-c"].target)


def test_a_second_entry_of_a_backend_shares_its_class():
    chosen = select(["numpy-einsum", "numpy-einsum#2"])
    assert list(chosen) == ["numpy-einsum", "numpy-einsum#2"]
    assert chosen["numpy-einsum"] == chosen["numpy-einsum#2"]


@pytest.mark.parametrize("name", ["xyz", ""])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(RegistryError, match=r"is unknown, expected one of: .*numpy-einsum.*torch-bilinear"):
        select([name])


@pytest.mark.parametrize("name", ["numpy-einsun", "numpy-einsum#", "numpy-einsum#two", "numpy-einsum#²"])
def test_a_misspelt_name_is_refused_with_the_closest_ones(name):
    with pytest.raises(RegistryError, match="is unknown: did you mean 'numpy-einsum'"):
        select([name])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("class A:\n    name = 'peer-a'\n", "derive its class from harness.backend.Backend"),
        ("A = 3\n", "derive its class from harness.backend.Backend"),
        ("from oracle import HonestBackend\nclass A(HonestBackend): ...\n", "A has no name"),
        ("from harness.backend import Backend\nclass A(Backend):\n    name = 'peer-a'\n", "A lacks prepare_forward"),
    ],
)
def test_what_does_not_implement_the_interface_is_refused(plant, source, words):
    plant("peer-a = peer_module:A", module=source)
    with pytest.raises(EntryPointError, match=words):
        backend_class("peer-a", "peer_module:A")


@pytest.mark.parametrize(
    ("missing", "required"),
    [("numpy_next", True), ("other.deep", True), ("peer", False), ("peer.deep", False), (None, False)],
)
def test_a_missing_module_of_others_is_a_requirement(missing, required):
    error = ModuleNotFoundError("no such module", name=missing)
    assert is_requirement(error, "peer.kernels:Kernel") == required


def test_a_repeated_name_is_refused_with_the_way_to_repeat_it():
    with pytest.raises(RegistryError, match="numpy-einsum#2"):
        select(["numpy-einsum", "numpy-einsum"])


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("METADATA", b"Metadata-Version: 2.1\nName: neighbour\nVersion: 1.0\nAuthor: J\xf6rg\n"),
        ("entry_points.txt", b"[console_scripts]\nhalf\n"),
        ("entry_points.txt", b"[console_scripts]\n\xe9t\xe9 = a:b\n"),
    ],
    ids=["not UTF-8", "an entry point without a value", "entry points not UTF-8"],
)
def test_malformed_metadata_of_another_package_is_passed_over(plant, file, content):
    site = plant("", name="neighbour")
    (site / "neighbour-1.5.dist-info" / "entry_points.txt").write_text("")
    (site / "neighbour-1.5.dist-info" / file).write_bytes(content)
    plant("peer-gemm = peer_module:Gemm", requires="Requires-Dist: arrays-cuda13x>=1\n")
    assert "peer-gemm" in entries()


def test_an_entry_point_of_our_group_that_names_no_class_is_refused(plant):
    plant("peer-half = two words")
    with pytest.raises(RegistryError, match=r"peer registers the backend peer-half as 'two words', expected module:"):
        entries()
