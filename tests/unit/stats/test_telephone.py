"""Telephone numbers as people write them, and the many numbers that are none."""

from __future__ import annotations

import time

import pytest

from windlass.stats.telephone import telephones


def _found(text: str) -> list[str]:
    """What is found, what overlaps taken together."""
    taken = set()
    for span in telephones(text):
        taken |= set(range(span.start, span.end))
    return "".join(char if at in taken else "\n" for at, char in enumerate(text)).split("\n")


@pytest.mark.parametrize(
    "number",
    [
        *(
            "+49 30 901820",
            "+14155550123",
            "+1 (415) 555-2671",
            "+44 (0)20 7946 0958",
            "0049 30 901820",
            "+81-3-1234-5678",
        ),
        *(
            "(415) 555-2671",
            "415-555-2671",
            "415.555.2671",
            "1-800-555-0199",
            "1-800-555-0199 ext. 12",
            "(415)555-2671",
        ),
        *(
            "020 7946 0958",
            "030/12345678",
            "030 / 123456",
            "01 23 45 67 89",
            "07700 900123",
            "0171 2345678",
            "07700900123",
        ),
        *("(11) 91234-5678", "138 1234 5678", "+３５３ 1 437 0000"),
    ],
)
def test_a_number_is_found_by_its_form(number: str) -> None:
    assert [piece for piece in _found(f"It is {number}, thanks.") if piece] == [number]


@pytest.mark.parametrize("before", ["phone: ", "Tel. ", "call me at ", "Fax:", "Telefon ", "my mobile is ", "电话："])
def test_a_word_before_it_makes_a_number_a_telephone_number(before: str) -> None:
    said = before.replace("：", ": ")
    assert [piece for piece in _found(f"{said}67801642!") if piece] == ["67801642"]
    assert not any(_found("it took 67801642!"))


@pytest.mark.parametrize(
    "text",
    [
        *("2026-11-21T13:44:58.123456Z", "1700000000", "1700000000123", "call_019ab3f2c4d57e8890a1b2c3d4e5f607"),
        *("550e8400-e29b-41d4-a716-446655440000", "3.14159265358979", "$1,234,567.89", "1.234.567,89", "v1.2.3.4"),
        *("192.168.100.200", "10.0.0.1:8080", "01.02.2024 12:30", "2024-01-02", "12/31/1999", "phone 01/02/2024"),
        *("0123456789", "1000000", "pages 1234-1245", "+1 000 000", "+999 123 456 789", "1920x1080", "5 + 100000000"),
        *(
            "-0.0036910512",
            "0.00985979475080967",
            "(2019) 1234-5678",
            "ISBN 978-3-16-148410-0",
            "911-911-9111",
            "room 12",
        ),
    ],
)
def test_times_ids_prices_versions_and_floats_are_no_telephone_numbers(text: str) -> None:
    assert not any(_found(text)), text


@pytest.mark.parametrize(
    "piece", ["+", "+4", "+1 ", "0 1", "01 23 ", "(", "(030) ", "tel ", "tel is is is 1 ", "1.1.", "1"]
)
def test_a_megabyte_of_anything_takes_linear_time(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    started = time.process_time()
    assert all(0 <= span.start < span.end <= len(text) for span in telephones(text))
    assert time.process_time() - started < 30.0


def test_a_number_behind_it_is_no_part_of_an_international_one() -> None:
    assert _found("+1 415 555 2671 20 20")[0] == "+1 415 555 2671"
