"""Tenancy's probes: who asks, with what, what comes back in words, and what of the owner stands in it."""

from __future__ import annotations

import html
import json
import random
import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote, quote_plus

from markupsafe import escape
from tests.conformance.tenancy_world import RIVAL, SECRET, Probe, Read, World

from windlass.errors import WindlassError
from windlass.records import Scope

STRANGERS = [
    *(RIVAL, Scope("acme", "other"), Scope("default"), Scope("acme", ""), Scope("", "default"), Scope("", "")),
    *(Scope("ACME"), Scope("acme "), Scope(" acme"), Scope("acm_"), Scope("%"), Scope("acme%"), Scope("_" * 4)),
    *(Scope("аcme"), Scope("acme\u200b"), Scope("acme/default"), Scope("acme", "DEFAULT"), Scope("acme", "%")),
    *(Scope("acme' OR '1'='1"), Scope("acme'--"), Scope("*"), Scope("acme", "default' OR 1=1 --"), Scope("ＡＣＭＥ")),
]
FRAGMENTS = [
    *("", " ", "%", "_", "*", "%%", "?", "\\", "'", '"', "''", ";", "--", "/*", "\u200b", "0", "-1", "null", "None"),
    *("' OR '1'='1", "' OR 1=1 --", "x') OR ('1'='1", "' UNION SELECT data FROM bodies --", "1; DROP TABLE audit"),
    *(
        "$1",
        ":tenant",
        "%s",
        "{0}",
        "{{7*7}}",
        "../../acme",
        "text: *",
        "NEAR(windlass one)",
        "windlass*",
        '"turns one"',
    ),
    *("windlass OR capstan", "NOT windlass", "^windlass", "tenant:acme", "text MATCH 'windlass'", "(windlass", "& | !"),
    *("windlass turns one way", "the", "capstan ropes harbour", "call_", "item_", "run_", "content", "model"),
]


def probes(count: int, known: Sequence[str], seed: int) -> Iterator[Probe]:
    """Who asks, and with what: the owner's names as they are, altered, in pieces, in other letters; syntax; guesses."""
    chance = random.Random(seed)
    for _ in range(count):
        scope = chance.choice(STRANGERS) if chance.random() < 0.7 else RIVAL
        yield Probe(scope, _text(chance, known), chance.randrange(1_000_000))


def _text(chance: random.Random, known: Sequence[str]) -> str:
    name, fragment = chance.choice(known), chance.choice(FRAGMENTS)
    cut = chance.randrange(len(name) + 1)
    match chance.randrange(10):
        case 0 | 1 | 2:
            return name
        case 3:
            return name[:cut] + chance.choice("%_*?")
        case 4:
            return name[:cut] + fragment + name[cut:]
        case 5:
            return chance.choice((name.upper(), name.swapcase(), name.replace("a", "а"), name + " ", "\u200b" + name))
        case 6:
            return f"{name} {fragment}"
        case 7:
            return f"{name.partition('_')[0]}_{chance.getrandbits(128):032x}"
        case _:
            return fragment


def result(read: Read, world: World, probe: Probe) -> str:
    """What a read gives, in words; an error of ours is an answer, any other one is a mistake."""
    try:
        return _ADDRESS.sub("", repr(read(world, probe)))
    except WindlassError as exc:
        return f"{type(exc).__name__}: {exc}"


_ADDRESS = re.compile(" at 0x[0-9a-f]+")


def leaks(said: str, *asked: str) -> str:
    """What of the owner stands in `said`, beyond the words that the probes themselves brought."""
    said = said.lower()
    spoken = {form.lower() for text in asked for form in _forms(text) if SECRET.search(form)}
    for part in sorted(spoken, key=len, reverse=True):
        said = said.replace(part, "")
    found = SECRET.search(said)
    return said[max(0, found.start() - 100) : found.end() + 100] if found else ""


def _forms(text: str) -> Iterator[str]:
    """How a text may come back: as it was, with its escapes, as a page or a header shows it."""
    yield from (html.escape(text), str(escape(text)), quote(text), quote_plus(text), quote(text, safe=""))
    yield from (text, repr(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], " ".join(text.split()))
    yield " ".join(text.encode("ascii", "ignore").decode().split())
