"""The HTML report of an experiment: it stands alone, escapes everything, and has its drawings with their tables."""

from __future__ import annotations

from tests.unit.improve.experiments.seen import EVIL, hostile, seen
from tests.unit.server.dashboard.visitor import Page

from windlass.server.dashboard import experiment_report, sheet


def read(text: str) -> Page:
    return Page(200, {}, text)


def test_all_that_is_known_is_in_it() -> None:
    page = read(experiment_report.page(seen()))
    for told in (
        "b is better by 3.1 points",
        "SHA-256 0123456789ab",
        "always small",
        "Sample ratio: as planned (p 0.420).",
        "+1.2 to +5.0 points (97.5 %)",
        "-10.0 to +5.0 % (97.5 %)",
        "-0.5 to +6.5 points",
        "+4.0 points, -2.0 to +10.0 points",
        "does not hold",
        "z +9.50 at the last of 2 looks, beyond the boundary of 4.88.",
        "at most 2 points worse",
        "3.2 of 133 after 512 values",
    ):
        assert told in page.text
    drawings = [named for tag, named in page.tags if tag == "svg" and "role" in named]
    assert len(drawings) == 5, "four effects, and the looks of one candidate"
    ids = [named["id"] for _, named in page.tags if "id" in named]
    assert len(ids) == len(set(ids))
    assert all({one["aria-labelledby"], one["aria-describedby"]} <= set(ids) for one in drawings)
    assert [tag for tag, _ in page.tags].count("details") == 1


def test_it_stands_alone_and_hostile_words_stay_words() -> None:
    text = experiment_report.page(hostile())
    page = read(text)
    assert not {"script", "link", "img", "iframe", "a", "b"} & {tag for tag, _ in page.tags}
    assert not {"src", "href", "style", "onload"} & {name for _, named in page.tags for name in named}
    evil = " ".join(EVIL.split())
    assert page.text.count(evil) == 7, "the sentence, the point, the hypothesis, the owner, and what three variants do"
    assert "<script" not in text


def test_a_title_cannot_end_its_element() -> None:
    text = sheet.sheet("</title><script>", style="")
    assert "<script" not in text
    assert text.count("</title>") == 1
