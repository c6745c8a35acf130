"""Addresses, accounts and cards: published test numbers are found, what only looks alike is left."""

from __future__ import annotations

import time

import pytest

from windlass.stats.personal import cards, emails, ibans

MEGABYTE = 1_000_000
# Linear time on a slow machine with others at work; what backtracks takes hours.
MOST_CPU_S = 30.0


@pytest.mark.parametrize(
    "address",
    [
        *(
            "alice@example.org",
            "a+b.c-d_e@mail.example.co.uk",
            "müller@exämple.de",
            "用户@例子.广告",
            "o'neil@example.org",
        ),
        *(
            '"john doe"@example.org',
            "alice%40example.org",
            "alice＠example.org",
            "alice@[192.0.2.1]",
            "x@xn--9ca.example",
        ),
    ],
)
def test_an_address_is_found_whole(address: str) -> None:
    text = f"Write to <{address}>, today."
    (span,) = emails(text)
    assert text[span.start : span.end] == address


@pytest.mark.parametrize(
    "text",
    [
        "@property",
        "root@localhost",
        "react@18.2.0",
        "a @ b.org",
        "x@y",
        "@",
        "-F file=\"\\\n @a\" 'x' @example.org",
        "a@.org",
    ],
)
def test_what_only_holds_the_sign_is_no_address(text: str) -> None:
    assert list(emails(text)) == []


# The examples of the IBAN registry.
IBANS = (
    "DE89370400440532013000",
    "GB82WEST12345698765432",
    "FR1420041010050500013M02606",
    "NL91ABNA0417164300",
    "NO9386011117947",
    "MT84MALT011000012345MTLCAST001S",
    "LC55HEMM000100010012001200023015",
)


@pytest.mark.parametrize("iban", IBANS)
def test_an_account_is_found_in_one_piece_in_groups_and_in_small_letters(iban: str) -> None:
    grouped = " ".join(iban[at : at + 4] for at in range(0, len(iban), 4))
    for written in (iban, grouped, iban.lower()):
        text = f"IBAN: {written}, please"
        (span,) = ibans(text)
        assert text[span.start : span.end] == written


@pytest.mark.parametrize(
    "text", ["DE88370400440532013000", "DE8937040044053201300", "XX89370400440532013000", "DE893704004405320130001"]
)
def test_a_wrong_check_digit_length_or_country_is_no_account(text: str) -> None:
    assert list(ibans(text)) == []


# Test numbers that card schemes and payment providers publish.
CARDS = (
    *(
        "4111111111111111",
        "4242424242424242",
        "4222222222222",
        "4000056655665556",
        "5555555555554444",
        "2223003122003222",
    ),
    *("5105105105105100", "378282246310005", "371449635398431", "6011111111111117", "30569309025904", "38520000023237"),
    *("3530111333300000", "3566002020360505", "6200000000000005", "6304000000000000", "2200000000000004"),
)


@pytest.mark.parametrize("card", CARDS)
def test_a_card_is_found_in_one_piece_and_in_groups(card: str) -> None:
    blanks = " ".join(card[at : at + 4] for at in range(0, len(card), 4))
    for written in (card, blanks, blanks.replace(" ", "-"), blanks.replace(" ", "\u00a0"), " ".join(card)):
        text = f"card {written}."
        (span,) = cards(text)
        assert text[span.start : span.end] == written


def test_a_card_is_found_among_other_numbers() -> None:
    text = "no. 12 4111 1111 1111 1111 until 12/27"
    assert [text[span.start : span.end] for span in cards(text)] == ["4111 1111 1111 1111"]
    assert [span.end - span.start for span in cards("٤١١١١١١١١١١١١١١١")] == [16]


@pytest.mark.parametrize(
    "text",
    [
        *("4111111111111112", "1700000000123", "0.4111111111111111", "4111111111111111.5", "x4111111111111111"),
        *("41111111111111111111", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", "0000000000000000", "978-3-16-148410-0"),
    ],
)
def test_a_number_without_issuer_check_digit_or_border_is_no_card(text: str) -> None:
    assert list(cards(text)) == []


@pytest.mark.parametrize("find", [emails, ibans, cards])
@pytest.mark.parametrize(
    "piece", ["a", "@", "a@", "@a.", "a.b@", '"@', "1", "1 ", "444 ", "4-", "DE89", "DE89 ", "GB82WEST1234 ", "\n"]
)
def test_a_megabyte_of_anything_takes_linear_time(find, piece: str) -> None:
    text = piece * (MEGABYTE // len(piece))
    started = time.process_time()
    assert all(0 <= span.start < span.end <= len(text) for span in find(text))
    assert time.process_time() - started < MOST_CPU_S
