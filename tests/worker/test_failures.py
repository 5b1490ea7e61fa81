"""What a worker says of an exception."""

from __future__ import annotations

import pytest

from harness.worker.failures import failure


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(122, "Disk quota exceeded"),
        OSError("20480 requested and 4096 written"),
    ],
)
def test_a_full_disk_is_named_with_the_variable_to_set(error):
    said = failure(error, "").error
    assert said.startswith("no room left for files: look at the temporary folder (TMPDIR)")
    assert str(error) in said


def test_another_error_of_a_file_is_said_as_it_is():
    assert failure(OSError(13, "Permission denied"), "").error == "PermissionError: [Errno 13] Permission denied"
