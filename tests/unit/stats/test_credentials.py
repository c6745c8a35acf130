"""Keys by the forms that their issuers publish. All are made up, or their issuers' own examples."""

from __future__ import annotations

import time

import pytest

from windlass.stats.credentials import credentials

BASE64 = "MIIBOgIBAAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf9Cnzj4p4WGeKLs1Pt8Q"
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{BASE64}\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    "key",
    [
        *(
            "sk-" + "aB3dE6gH9" * 5,
            "sk-proj-a1b2c3d4e5f6g7h8i9",
            "sk-ant-api03-AAAAbbbb1234567890-x_y",
            "AKIAIOSFODNN7EXAMPLE",
        ),
        *(
            "wl-Qm9ndXMtYnV0LXBsYXVzaWJsZS1rZXktb2YtYS1jbGllbnQ",
            "ghp_" + "a1B2" * 9,
            "github_pat_11AAAAAAA0123456789abc",
        ),
        *("xoxb-" + "123456789012-abcdef", "AIza" + "Sy0_-" * 7, "hf_" + "aB3" * 11, "glpat-abcdefghij0123456789", PEM),
        *("sk_live_" + "4eC39HqLyjWDarjtT1", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r"),
    ],
)
def test_a_key_is_found_whole(key: str) -> None:
    text = f"take '{key}' and go"
    (span,) = credentials(text)
    assert text[span.start : span.end] == key


@pytest.mark.parametrize(
    "text",
    [
        *("Authorization: Bearer {}", "authorization: basic {}", "OPENAI_API_KEY={}", '"api_key": "{}"'),
        *("aws_secret_access_key = {}", "client_secret: {}"),
    ],
)
def test_what_is_called_a_key_is_one(text: str) -> None:
    key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    said = text.format(key)
    assert [said[span.start : span.end] for span in credentials(said)] == [key]


@pytest.mark.parametrize(
    "text",
    ["sk-spinner-pulse-container-wide", "sk-1234", "task-12345678901234567890", "bearer of bad news", "AKIA", "eyJ"],
)
def test_words_with_hyphens_are_no_keys(text: str) -> None:
    assert list(credentials(text)) == []


def test_a_private_key_that_was_cut_goes_as_far_as_it_reaches() -> None:
    cut = PEM[:70]
    assert [(span.start, span.end) for span in credentials(cut)] == [(0, 70)]


@pytest.mark.parametrize(
    "piece",
    [
        "sk-",
        "eyJ",
        "eyJaaaaaaaaa.",
        "-----BEGIN PRIVATE KEY-----",
        "Bearer ",
        "api_key=",
        "-----BEGIN PRIVATE KEY-----\0-----END",
    ],
)
def test_a_megabyte_of_anything_takes_linear_time(piece: str) -> None:
    started = time.process_time()
    assert len(list(credentials(piece * (1_000_000 // len(piece))))) < 1_000_000
    assert time.process_time() - started < 30.0
