"""Collect the benchmarks only for those who ask: `pytest --benchmark-only`. Plain `pytest` does not see them."""


def pytest_ignore_collect(collection_path, config):
    return None if config.getoption("--benchmark-only") else True
