"""What people write into an experiment stays plain text in its Markdown report."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from tests.unit.improve.experiments.seen import EVIL, parsed, readable

from windlass.improve.experiments import report

PLAIN = {"bullet_list", "list_item", "paragraph"}


@given(st.text(max_size=60))
@example(EVIL)
@example("- [x] a\\")
@example("&amp; &#42; ~~a~~ <a@b.c>")
def test_any_text_is_one_line_without_markup(text: str) -> None:
    line = f"- Owner: {report.plain(text)}"
    kinds = {token.type.removesuffix("_open").removesuffix("_close") for token in parsed(line)}
    assert kinds <= PLAIN | {"inline", "text"}
    seen = "".join(char if char.isprintable() else " " for char in f"Owner: {text}")
    assert readable(line).split() == seen.split()
