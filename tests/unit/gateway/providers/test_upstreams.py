"""Providers by the kind that the settings name: ours, and those of plugins."""

from __future__ import annotations

import msgspec
import pytest

from windlass.errors import SettingsError
from windlass.gateway.options import BASE_URLS, KIND_OPTIONS, ModelOptions, ProviderOptions
from windlass.gateway.providers import upstreams
from windlass.gateway.providers.anthropic import Anthropic
from windlass.gateway.providers.azure import Azure
from windlass.gateway.providers.gemini import Gemini
from windlass.gateway.providers.openai_compatible import OpenAICompatible
from windlass.settings import load

MODULE = """
from windlass.testing import Echo

class Parrot(Echo):
    def __init__(self, options, api_key=""):
        super().__init__()
        self.name, self.models = options.name, options.models
        self.key, self.told = api_key, options.options

def other_name(options, api_key):
    made = Parrot(options)
    made.name = "parrot"
    return made

def other_models(options, api_key):
    made = Parrot(options)
    made.models = ()
    return made

def deaf(options, api_key):
    made = Parrot(options)
    made.send = None
    return made

def raises(options, api_key):
    raise RuntimeError("no " + options.options["word"])

nothing = lambda options, api_key: None
"""


@pytest.fixture
def plugged(tmp_path, monkeypatch):
    info = tmp_path / "plugged_parrot-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-parrot\nVersion: 2.0\n")
    names = ("Parrot", "other_name", "other_models", "deaf", "raises", "nothing")
    entries = [f"{name.lower()} = plugged_parrot:{name}" for name in names]
    (info / "entry_points.txt").write_text("[windlass.providers]\n" + "\n".join(entries))
    (tmp_path / "plugged_parrot.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))


def _options(kind, **options):
    return ProviderOptions(name="mine", kind=kind, models=(ModelOptions(name="m"),), options=options)


async def test_openai_compatible_is_the_kind_without_a_name():
    made = upstreams.make(
        ProviderOptions(name="up", base_url="http://127.0.0.1:1/v1", models=(ModelOptions(name="m"),)), "key"
    )
    assert isinstance(made, OpenAICompatible)
    await made.close()


KINDS = {"openai_compatible": OpenAICompatible, "anthropic": Anthropic, "gemini": Gemini, "azure": Azure}


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_ours_has_a_provider(kind):
    assert {*KINDS, "litellm"} == set(KIND_OPTIONS), "litellm's needs an extra: `test_litellm.py`"
    options = ProviderOptions(name="up", kind=kind, base_url="https://own.example/v1", models=(ModelOptions(name="m"),))
    made = upstreams.make(options, "key")
    assert isinstance(made, KINDS[kind])
    assert (made.name, made.models, made.local) == ("up", options.models, False)
    assert options.base_url == "https://own.example/v1"
    await made.close()


@pytest.mark.parametrize("kind", BASE_URLS)
def test_a_kind_that_knows_its_upstream_needs_no_url(kind):
    assert ProviderOptions(name="up", kind=kind, models=()).base_url == BASE_URLS[kind]


@pytest.mark.parametrize(("kind", "fields"), [("anthropic", {"max_tokens": 9}), ("azure", {"api_version": "preview"})])
def test_options_that_were_read_once_are_not_refused_later(kind, fields):
    """Settings are read, changed and read again: what a kind added by itself must still be accepted."""
    options = ProviderOptions(name="up", kind=kind, base_url="https://x", models=(), options=fields)
    again = msgspec.convert(msgspec.to_builtins(options), ProviderOptions)
    assert msgspec.structs.replace(again, name="up") == options


def test_a_plugin_gets_its_options_and_its_key(plugged):
    made = upstreams.make(_options("parrot", volume=3), "sk")
    assert (made.name, made.models[0].name, made.key, made.told) == ("mine", "m", "sk", {"volume": 3})


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("other_name", "it gave name 'parrot' and 1 models"),
        ("other_models", "it gave name 'mine' and 0 models"),
        ("deaf", "send and close must be those of a Provider"),
        ("raises", "RuntimeError: no luck"),
        ("nothing", "AttributeError"),
    ],
)
def test_what_is_no_provider_is_refused_with_its_distribution(plugged, kind, said):
    with pytest.raises(SettingsError, match=rf"provider mine, kind '{kind}' of plugged-parrot 2.0, .*{said}"):
        upstreams.make(_options(kind, word="luck"))


def test_an_unknown_kind_is_told_what_there_is(plugged):
    with pytest.raises(SettingsError, match="unknown kind 'parot'; known: openai_compatible, .*parrot"):
        upstreams.make(_options("parot"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models = []", "has no base_url; give one, or another `kind`"),
        ("models = []\nkind = 'azure'", "has no base_url; give one, or another `kind`"),
        ("models = []\nbase_url = 'http://x/v1'\noptions = { a = 1 }", "`a`; openai_compatible takes no options"),
        ("models = []\nbase_url = 'http://x/v1?api-version=1'", "base_url ends before any"),
        ("models = []\nkind = 'anthropic'\nbase_url = 'http://x/v1#a'", "base_url ends before any"),
        ("models = []\nkind = 'anthropic'\nbase_url = 'ftp://x'", "regex"),
        (
            "models = []\nkind = 'anthropic'\noptions = { betas = ['a'] }",
            "unknown field `betas`; anthropic takes version",
        ),
        ("models = []\nkind = 'anthropic'\noptions = { beta = 'a' }", "options.beta: Expected `array`, got `str`"),
        ("models = []\nkind = 'anthropic'\noptions = { beta = ['a\\r\\nx: y'] }", "matching regex"),
        ("models = []\nkind = 'anthropic'\noptions = { max_tokens = 0 }", "options.max_tokens: Expected `int` >= 1"),
        ("models = []\nkind = 'anthropic'\noptions = { adaptive = 'yes' }", "Expected `bool"),
        ("models = []\nkind = 'gemini'\noptions = { key = 'x' }", "unknown field `key`; gemini takes no options"),
        ("models = []\nkind = 'azure'\nbase_url = 'http://x'\noptions = { api_version = 'new&a=b' }", "matching regex"),
        ("models = []\nkind = ''", "length >= 1"),
        ("models = []\nkind = 'parrot'\nbase_url = 'ftp://x'", "regex"),
    ],
)
def test_settings_that_make_no_sense_are_named(tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "windlass.toml").write_text(f"[[providers]]\nname = 'x'\n{text}\n")
    with pytest.raises(SettingsError, match=f"providers.*{said}"):
        load(environ={})
