"""The published prices: a table in the package, made at a release by tools/prices.py, and how a model is found in it.

Read on need and never as a whole: the text stays one string of a megabyte, a look-up decodes one line of it.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from windlass.gateway.money.prices import Price, price_of, resolved
from windlass.gateway.options import OPENAI_COMPATIBLE, ModelOptions

MOST_KNOWN = 10_000
TABLE = Path(__file__).with_name("prices.json.gz")
SOURCES = {"l": "litellm", "g": "genai-prices"}
# By the host's name, or its end behind a dot where customers have names of their own. A host that is not here has
# prices that only the settings can know: such as a server of one's own, or OpenAI's in Europe, which are dearer.
HOSTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (".openai.azure.com", ("azure", "azure_ai", "openai")),
    (".cognitiveservices.azure.com", ("azure", "azure_ai", "openai")),
    (".services.ai.azure.com", ("azure_ai", "azure", "openai")),
    ("aiplatform.googleapis.com", ("vertex_ai", "gemini")),
    ("generativelanguage.googleapis.com", ("gemini",)),
    ("api.openai.com", ("openai",)),
    ("api.anthropic.com", ("anthropic",)),
    ("openrouter.ai", ("openrouter",)),
    ("api.mistral.ai", ("mistral",)),
    ("codestral.mistral.ai", ("codestral", "mistral")),
    ("api.groq.com", ("groq",)),
    ("api.deepseek.com", ("deepseek",)),
    ("api.x.ai", ("xai",)),
    ("api.together.xyz", ("together_ai",)),
    ("api.together.ai", ("together_ai",)),
    ("api.fireworks.ai", ("fireworks_ai",)),
    ("api.perplexity.ai", ("perplexity",)),
    ("api.cohere.com", ("cohere",)),
    ("api.cohere.ai", ("cohere",)),
    ("api.cerebras.ai", ("cerebras",)),
    ("api.deepinfra.com", ("deepinfra",)),
    ("api.novita.ai", ("novita",)),
    ("api.voyageai.com", ("voyage",)),
    ("api.moonshot.ai", ("moonshot",)),
    ("api.moonshot.cn", ("moonshot",)),
    ("api.minimax.io", ("minimax",)),
    ("api.z.ai", ("zai",)),
    ("open.bigmodel.cn", ("bigmodel",)),
    ("dashscope-intl.aliyuncs.com", ("dashscope",)),
    ("dashscope.aliyuncs.com", ("dashscope",)),
    ("api.sambanova.ai", ("sambanova",)),
    ("api.hyperbolic.xyz", ("hyperbolic",)),
    ("api.studio.nebius.ai", ("nebius",)),
    ("api.studio.nebius.com", ("nebius",)),
    ("router.huggingface.co", ("huggingface",)),
    ("ai-gateway.vercel.sh", ("vercel_ai_gateway",)),
    ("inference.baseten.co", ("baseten",)),
    ("api.scaleway.ai", ("scaleway",)),
    ("api.ai21.com", ("ai21",)),
    ("api.elevenlabs.io", ("elevenlabs",)),
    ("api.deepgram.com", ("deepgram",)),
    (".cloud.databricks.com", ("databricks",)),
)
KINDS: dict[str, tuple[str, ...]] = {
    "anthropic": ("anthropic",),
    "gemini": ("gemini",),
    "azure": ("azure", "azure_ai", "openai"),
}
LITELLM = "litellm"
UNPREFIXED = ("openai", "anthropic", "gemini", "vertex_ai", "bedrock", "cohere", "mistral")
"""Where a name without a provider is looked for when the kind is `litellm`, in this order."""
_BEDROCK = re.compile(r"bedrock[a-z-]*\.[a-z0-9-]+\.amazonaws\.com")
# Google puts the region before a dash: us-central1-aiplatform.googleapis.com.
_GOOGLE_REGION = re.compile(r"^[a-z0-9-]+-(?=aiplatform\.googleapis\.com$)")
_DATE = r"(?:20\d\d-\d\d-\d\d|20\d{6})"
_VERSION = re.compile(rf"(?:[-@]{_DATE}|[-@]latest|@default|-\d{{3}})$")
_REGION = re.compile(r"^(?:us|eu|apac|jp|au|ca|sa|me|global|us-gov)\.")
_DIGITS = re.compile(r"\D")


class About(msgspec.Struct, frozen=True):
    """What the table says of itself: the day it holds for, and the versions of its sources."""

    on: str
    sources: dict[str, str]
    rows: int


class _Row(msgspec.Struct, frozen=True, rename={"same_as": "as"}):
    by: str = ""
    mode: str = "chat"
    context: int = 0
    most_output: int = 0
    flags: str = ""
    rates: dict[str, int] = {}
    differs: dict[str, int] = {}
    same_as: str = ""


class Pricelist:
    """The table as text, sorted lines: provider, tab, model, tab, JSON; the first line is about the table."""

    def __init__(self, text: bytes):
        head, _, self._text = text.partition(b"\n")
        self._text = b"\n" + self._text
        self.about = msgspec.json.decode(head, type=About)

    def exact(self, provider: str, model: str) -> Price | None:
        """The price under exactly these names, in small letters; other names of a model lead to it."""
        for _ in range(2):
            key = f"\n{provider}\t{model}\t".encode()
            at = self._text.find(key)
            if at < 0 or "\t" in model or "\n" in model:
                return None
            line = self._text[at + len(key) : self._text.find(b"\n", at + 1)]
            row = msgspec.json.decode(line, type=_Row)
            if not row.same_as:
                return _price(provider, model, row)
            model = row.same_as
        return None

    def newest(self, provider: str, stem: str) -> Price | None:
        """The newest of the models that are `stem` and a date."""
        dated = re.compile(rf"\n{re.escape(provider)}\t({re.escape(stem)}[-@]{_DATE})\t".encode())
        names = [found[1].decode() for found in dated.finditer(self._text)]
        newest = max(names, key=lambda name: _DIGITS.sub("", name[len(stem) :]), default=None)
        return None if newest is None else self.exact(provider, newest)

    def all(self) -> Iterator[Price]:
        """Every price, sorted by provider and model; further names of a model are left out."""
        for line in self._text[1:].splitlines():
            provider, model, said = line.decode().split("\t")
            row = msgspec.json.decode(said, type=_Row)
            if not row.same_as:
                yield _price(provider, model, row)


@cache
def published() -> Pricelist:
    """The table of this release: 12 ms and 2 MB when it is first asked for."""
    return Pricelist(gzip.decompress(TABLE.read_bytes()))


def find(kind: str, base_url: str, model: str) -> Price | None:
    """The published price of a provider's model; None where nothing fits, which is no guess at a price.

    The providers are those of the kind (`anthropic`, `gemini`, `azure`), of the host (`openai_compatible`) or of the
    name's first part (`litellm`: `groq/...`). For each of them, by the names of `names`, the first that is there.
    """
    providers, name = _providers(kind, base_url, model.strip().lower())
    if not providers:
        return None
    table = published()
    for provider in providers:
        for candidate in names(provider, name):
            if (price := table.exact(provider, candidate)) is not None:
                return price
        for candidate in names(provider, name):
            if (price := table.newest(provider, candidate)) is not None:
                return price
    return None


def names(provider: str, name: str) -> list[str]:
    """What `name` may stand under, the nearest first.

    1. as it is; 2. without the provider before it (`openai/gpt-4o`); 3. behind the last `models/`,
    `foundation-model/` or `inference-profile/` (Google's and Amazon's long names); 4. a fine-tuned model by its base
    (`ft:base:...` -> `ft:base`); 5. without Amazon's region (`us.`); 6. each of them without a date, `-latest`, `-001`.
    """
    found = [name, name.removeprefix(f"{provider}/")]
    for part in ("models/", "foundation-model/", "inference-profile/"):
        found += [one.rpartition(part)[2] for one in found if part in one]
    found += [":".join(one.split(":")[:2]) for one in found if one.startswith("ft:")]
    if provider == "bedrock":
        found += [_REGION.sub("", one) for one in found]
    found += [_VERSION.sub("", one) for one in found]
    return [one for one in dict.fromkeys(found) if one]


def _providers(kind: str, base_url: str, name: str) -> tuple[tuple[str, ...], str]:
    if kind == LITELLM:
        provider, _, rest = name.partition("/")
        return ((provider,), rest) if rest else (UNPREFIXED, name)
    if kind != OPENAI_COMPATIBLE:
        return KINDS.get(kind, ()), name
    try:
        host = (urlsplit(base_url).hostname or "").rstrip(".")
    except ValueError:  # such as an address in brackets that is none
        return (), name
    if _BEDROCK.fullmatch(host):
        return ("bedrock", "bedrock_mantle"), name
    host = _GOOGLE_REGION.sub("", host)
    return next((found for end, found in HOSTS if host == end or (end[0] == "." and host.endswith(end))), ()), name


def _price(provider: str, model: str, row: _Row) -> Price:
    return resolved(
        Price(
            provider=provider,
            model=model,
            mode=row.mode,
            by=tuple(SOURCES[one] for one in row.by),
            context_tokens=row.context,
            most_output_tokens=row.most_output,
            vision="v" in row.flags,
            tools="t" in row.flags,
            published=row.rates,
            differs=row.differs,
        )
    )


class PriceBook:
    """What the models of the settings cost, found once for each. providers: name -> (kind, base URL)."""

    def __init__(self, providers: Mapping[str, tuple[str, str]] | None = None):
        self._providers = dict(providers or {})
        self._known: dict[tuple[str, str], Price] = {}

    def of(self, provider: str, model: ModelOptions) -> Price:
        """The price of a provider's model; `priced` is False where nothing is known of it."""
        found = self._known.get((provider, model.name))
        if found is None:
            if len(self._known) >= MOST_KNOWN:  # one model of the settings may stand for any name that a client sends
                self._known.clear()
            where = self._providers.get(provider)
            listed = find(*where, model.upstream or model.name) if where is not None else None
            found = self._known[provider, model.name] = price_of(model, listed)
        return found
