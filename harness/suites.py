class SuiteError(ValueError): ...


SUITES = {}


def suite(name):
    raise SuiteError(name)
