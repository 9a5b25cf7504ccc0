"""What commands say at their end."""

import pytest

from captum_regioncam.cli.common import pace, report_failures


def test_failures_are_grouped_by_their_reason(capsys):
    failures = {f"photo_{number}": f"data/photo_{number}.jpg: not an image." for number in range(25)}
    failures |= {"1": "1: 10 pixels are too few.", "2": "the maps are not finite"}
    report_failures(failures, 30, "photo")
    names = ", ".join(f"photo_{number}" for number in range(20))
    assert capsys.readouterr().err.splitlines() == [
        "27 of 30 photos failed:",
        "  25 times: data/NAME.jpg: not an image.",
        f"    {names} and 5 more",
        "  1: 10 pixels are too few.",
        "  2: the maps are not finite",
    ]
    report_failures({}, 30, "photo")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("photos", "seconds", "says"),
    [
        (6, 1.25, "6 photos in 1.2 s, 4.8 photos per second"),
        (1464, 732, "1,464 photos in 12 min 12 s, 2.0 photos per second"),
        (10582, 7380.4, "10,582 photos in 2 h 3 min, 1.4 photos per second"),
        (1, 0, "1 photo in 0.0 s, 1000.0 photos per second"),
    ],
)
def test_pace(photos, seconds, says):
    assert pace(photos, seconds) == says
