"""Text that may be printed."""

import pytest

from captum_regioncam.files.text import counted


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 photos"), (1, "1 photo"), (2, "2 photos"), (10582, "10,582 photos")]
)
def test_counted(number, text):
    assert counted(number, "photo") == text
