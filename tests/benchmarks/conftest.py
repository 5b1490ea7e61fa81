"""Collect the benchmarks for `pytest --benchmark-only` alone; plain `pytest` does not see them."""


def pytest_ignore_collect(collection_path, config):
    return None if config.getoption("--benchmark-only") else True
