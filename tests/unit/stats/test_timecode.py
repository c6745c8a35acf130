from __future__ import annotations

import math

import pytest

from windlass.stats import timecode


@pytest.mark.parametrize(
    ("seconds", "stamp"),
    [(0.0, "00:00:00"), (430.0, "00:07:10"), (430.999, "00:07:10"), (3_599.0, "00:59:59"), (359_999.9, "99:59:59")],
)
def test_formats_whole_seconds_rounded_down(seconds: float, stamp: str) -> None:
    assert timecode.format(seconds) == stamp


@pytest.mark.parametrize("seconds", [-0.1, 360_000.0, math.nan, math.inf, -math.inf, 1e300])
def test_refuses_to_format_what_is_no_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="not a time"):
        timecode.format(seconds)


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        ("00:07:10", 430.0),
        ("0:00:05", 5.0),
        (" 07:10 ", 430.0),
        ("75:30", 4_530.0),
        ("00:00:01.5", 1.5),
        ("00:00:01,250", 1.25),
        ("99:59:59", 359_999.0),
    ],
)
def test_parses_stamps_with_and_without_hours(stamp: str, seconds: float) -> None:
    assert timecode.parse(stamp) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "99:99:99",
        "00:60:00",
        "00:00:60",
        "100:00:00",
        "-1:00",
        "1:2:3:4",
        "00:07:10:",
        "aa:bb",
        "٠٠:٠١",
        "9" * 5000,
    ],
)
def test_refuses_what_is_no_stamp(text: str) -> None:
    with pytest.raises(ValueError, match=r"stamp|past 59|100 hours"):
        timecode.parse(text)


def test_a_message_about_an_endless_stamp_stays_short() -> None:
    with pytest.raises(ValueError, match="stamp") as caught:
        timecode.parse("1:" * 100_000)
    assert len(str(caught.value)) < 200
