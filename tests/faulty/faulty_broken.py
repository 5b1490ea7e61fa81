"""A backend whose package is missing."""

import a_package_that_nobody_has  # noqa: F401
