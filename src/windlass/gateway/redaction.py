"""What is taken out of bodies, comments and log lines before they are written: ours, own patterns, and plugins.

A recogniser is a callable that takes a text and returns spans, `(start, end, label)`. Those that are not ours are found
by name among the plugins (entry points of the group `windlass.recognisers`): a callable that takes a mapping of options
and returns a recogniser. `presidio` is ours and needs the extra `redaction`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
import structlog
from msgspec import Meta

from windlass import plugins
from windlass.errors import SettingsError
from windlass.stats.patterns import bounded
from windlass.stats.personal import Recogniser, Span, matches
from windlass.stats.redaction import Redaction

log = structlog.get_logger(__name__)
PRESIDIO = "presidio"
UNREAD = "unread"
"""Stands for a whole text that a recogniser failed to read: what it would have found must not be kept."""
_LABEL = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
_LOGS = Redaction()

Label = Literal["key", "email", "iban", "card", "phone"]
OwnLabel = Annotated[str, Meta(pattern="^[a-z][a-z0-9_]{0,39}$")]


class RedactionOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is taken out of bodies and comments before they are kept. What a client or an upstream gets never changes.

    find: which of ours. patterns: regular expressions of your own by label; what repeats in them has an upper bound.
    recognisers: more, by name: `presidio`, or plugins (entry points of the group `windlass.recognisers`).
    options: of each of those, by its name.
    """

    enabled: bool = True
    find: tuple[Label, ...] = ("key", "email", "iban", "card", "phone")
    patterns: dict[OwnLabel, str] = {}
    recognisers: tuple[str, ...] = ()
    options: dict[str, dict[str, Any]] = {}

    def __post_init__(self) -> None:
        for label, pattern in self.patterns.items():
            try:
                bounded(pattern)
            except ValueError as exc:
                raise ValueError(f"patterns.{label}: {exc}") from exc
        if stray := sorted(set(self.options) - set(self.recognisers)):
            raise ValueError(f"options.{stray[0]}: no such recogniser is used; add it to `recognisers`")


def make(options: RedactionOptions) -> Redaction | None:
    """What the settings ask for; None where they ask for nothing. SettingsError for a recogniser that cannot work."""
    if not options.enabled:
        return None
    own: list[Recogniser] = [partial(_found, label, bounded(one)) for label, one in options.patterns.items()]
    more = [_guarded(name, _recogniser(name, options.options.get(name, {}))) for name in options.recognisers]
    return Redaction(options.find, (*own, *more), slow=bool(more))


def _found(label: str, pattern: re.Pattern[str], text: str) -> Sequence[Span]:
    return [Span(*match.span(), label) for match in matches(pattern, text) if match[0]]


def _recogniser(name: str, options: Mapping[str, Any]) -> Callable[[str], Any]:
    if name == PRESIDIO:
        from windlass.gateway import presidio

        return presidio.make(options)
    plugin = plugins.load(plugins.RECOGNISERS, name)
    if plugin is None:
        known = ", ".join((PRESIDIO, *plugins.names(plugins.RECOGNISERS)))
        raise SettingsError(f"redaction.recognisers: unknown {name!r}; known: {known}")
    who = f"redaction.recognisers: {name!r} of {plugin.distribution}"
    try:
        made: Callable[[str], Any] = plugin.value(options)
    except Exception as exc:  # a stranger's code may raise anything; whose it was must be said
        raise SettingsError(f"{who}, is not accepted: {type(exc).__name__}: {exc}") from exc
    if not callable(made):
        raise SettingsError(f"{who}, is not accepted: it made {made!r}, not a callable that takes a text")
    return made


def _guarded(name: str, recognise: Callable[[str], Any]) -> Recogniser:
    """A recogniser that never fails a call: where it does, the text is not kept."""

    def guarded(text: str) -> Sequence[Span]:
        try:
            return list(_checked(recognise(text), len(text)))
        except Exception as exc:  # noqa: BLE001 - a stranger's code; without its answer nobody knows the text
            log.error("recogniser_failed", recogniser=name, reason=type(exc).__name__)
            return [Span(0, len(text), UNREAD)]

    return guarded


def _checked(spans: Any, length: int) -> Iterator[Span]:
    for start, end, label in spans:
        if not (0 <= start < end <= length and _LABEL.match(label)):
            raise ValueError(f"({start!r}, {end!r}, {label!r}) is no span of a text with {length} characters")
        yield Span(int(start), int(end), label)


# --- log lines, whatever the settings say


def log_line(logger: Any, method: str, line: Any) -> str:
    """The last of structlog's processors, for lines as they are printed, tracebacks with them."""
    return _LOGS.text(line)


class RedactedFormatter(logging.Formatter):
    """For what other libraries log."""

    def format(self, record: logging.LogRecord) -> str:
        return _LOGS.text(super().format(record))
