"""One thread of PyTorch for all tests of this folder."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="module")
def with_one_thread(one_thread):
    """Use the fixture of ``tests/conftest.py`` in every module."""
