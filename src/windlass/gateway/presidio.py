"""Presidio as a recogniser: what checks of many countries find, and names where a model of spaCy is installed.

The only file that imports it, and spaCy with it: 3 s and 200 MB that nobody pays who does not ask for it. Nothing is
downloaded: what needs the network is left out, and e-mail is found without it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from windlass.errors import SettingsError
from windlass.stats.personal import Span

MOST_CHARS = 100_000
"""So much text it reads at once; spaCy refuses more than ten times that."""
# Found by us; these two ask a list of domains in the network. Dates and places alone say nothing of a person.
_LEFT_OUT = ("EMAIL_ADDRESS", "URL", "DATE_TIME")
_WITH_MODEL = ("PERSON", "LOCATION", "NRP")


class PresidioOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `redaction.options.presidio` may hold.

    language: of the texts. model: the spaCy model, an installed package, that knows names; empty: only what has a form.
    entities: what is looked for, by Presidio's names; empty: all but links and dates. score: how sure it must be.
    """

    language: Annotated[str, Meta(pattern="^[a-z]{2}$")] = "en"
    model: str = ""
    entities: tuple[str, ...] = ()
    score: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.5


def make(options: Mapping[str, Any]) -> Callable[[str], Sequence[Span]]:
    """A recogniser. SettingsError where the extra, or the model, is not installed, or options make no sense."""
    try:
        wanted = msgspec.convert(dict(options), PresidioOptions)
    except msgspec.ValidationError as exc:
        raise SettingsError(f"redaction.options.presidio: {exc}") from exc
    if find_spec("presidio_analyzer") is None:
        raise SettingsError(
            "redaction.recognisers names presidio, which is not installed; `pip install windlass[redaction]`, or take "
            "it out"
        )
    return _Analyzer(wanted)


class _Analyzer:
    """Presidio's analyzer over one language."""

    def __init__(self, options: PresidioOptions) -> None:
        presidio: Any = importlib.import_module("presidio_analyzer")
        nlp: Any = importlib.import_module("presidio_analyzer.nlp_engine")
        engine = nlp.SpacyNlpEngine(models=[{"lang_code": options.language, "model_name": options.model or "none"}])
        engine.nlp = {options.language: _language(options)}  # its own `load` would download what is missing
        self._analyzer = presidio.AnalyzerEngine(nlp_engine=engine, supported_languages=[options.language])
        known = set(self._analyzer.get_supported_entities(options.language))
        if unknown := sorted(set(options.entities) - known):
            raise SettingsError(
                f"redaction.options.presidio: it knows no entity {unknown[0]!r} in {options.language!r}; it knows "
                f"{', '.join(sorted(known))}"
            )
        self._entities = list(options.entities) or sorted(known - {*_LEFT_OUT, *(() if options.model else _WITH_MODEL)})
        self._options = options

    def __call__(self, text: str) -> Sequence[Span]:
        found: list[Span] = []
        for start in range(0, len(text), MOST_CHARS):
            results = self._analyzer.analyze(
                text=text[start : start + MOST_CHARS],
                language=self._options.language,
                entities=self._entities,
                score_threshold=self._options.score,
            )
            found += [Span(start + one.start, start + one.end, one.entity_type.lower()) for one in results]
        return found


def _language(options: PresidioOptions) -> Any:
    """The installed model, or the language's rules alone."""
    spacy: Any = importlib.import_module("spacy")
    if not options.model:
        return spacy.blank(options.language)
    if not spacy.util.is_package(options.model):
        raise SettingsError(
            f"redaction.options.presidio: the spaCy model {options.model!r} is not installed; install it, or clear "
            "`model`"
        )
    return spacy.load(options.model)
