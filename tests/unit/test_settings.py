"""One typed tree, and where each value came from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from windlass.errors import SettingsError
from windlass.gateway.access.keys import WELL_KNOWN
from windlass.settings import Settings, flat, load, missing_secrets


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No windlass.toml of the developer's is read."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _file(folder: Path, text: str) -> None:
    (folder / "windlass.toml").write_text(text)


def test_defaults_need_nothing() -> None:
    settings = load(environ={"HOME": "/home/x"})
    assert (settings.server.port, settings.home, settings.cache) == (
        8321,
        Path(".windlass"),
        Path("/home/x/.cache/windlass"),
    )
    assert settings.sources == {}


def test_the_later_source_wins_and_is_named(elsewhere: Path) -> None:
    _file(elsewhere, '[server]\nport = 1111\nhost = "localhost"\n[gateway]\nmax_body_bytes = 4096\n')
    environ = {"WINDLASS_SERVER__PORT": "2222", "WINDLASS_HOME": "~/w", "WINDLASS_GATEWAY__KEEP_BODIES": "false"}
    settings = load({"server.port": 3333}, environ=environ)
    shown = flat(settings)
    assert shown["server.port"] == (3333, "command line")
    assert shown["server.host"] == ("localhost", "windlass.toml")
    assert shown["gateway.keep_bodies"] == (False, "environment")
    assert shown["gateway.max_body_bytes"] == (4096, "windlass.toml")
    assert shown["memory.embedder"] == ("auto", "default")
    assert settings.home == Path("~/w").expanduser()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nport = 70000", "server.port: Expected `int` <= 65535 .*windlass.toml"),
        ("[server]\nprot = 1", "server: Object contains unknown field `prot`"),
        ("[sever]\nport = 1", "unknown setting 'sever'; did you mean 'server'"),
        ("[reward]\nwieghts = {}", "reward: unknown setting 'wieghts'; did you mean 'weights'"),
        ("[points.model]\npolicy = 'fixed'\nmod = 'live'", "points.model: unknown setting 'mod'; did you mean 'mode'"),
        ("[points.model]\nmode = 'on'", "points"),
        ("[[providers]]\nname = 'x'\nbase_url = 'ftp://x'\nmodels = []", "providers"),
        ("[[keys]]\nname = 'x'\nsha256 = 'short'", "keys"),
        ("server = 5", "server: Expected `object`, got `int`"),
        ("[server", "is not valid TOML"),
        ("x=" + "[" * 100_000, "is not valid TOML"),
        ("[reward]\nlatency_weight = nan", "reward"),
    ],
)
def test_a_mistake_is_named_with_its_place(elsewhere: Path, text: str, said: str) -> None:
    _file(elsewhere, text)
    with pytest.raises(SettingsError, match=said):
        load(environ={})


def test_one_run_names_every_mistake(elsewhere: Path) -> None:
    _file(elsewhere, "[server]\nport = 0\n[gateway]\nmax_body_bytes = 1\n[nope]\nx = 1")
    with pytest.raises(SettingsError) as refused:
        load(environ={})
    assert all(word in str(refused.value) for word in ("server.port", "gateway.max_body_bytes", "nope"))


def test_a_path_below_a_plain_value_is_refused() -> None:
    with pytest.raises(SettingsError, match="plain value"):
        load({"home": "x", "home.below": 1}, environ={})


@pytest.mark.parametrize("plain", sorted(WELL_KNOWN))
def test_a_key_that_everybody_knows_is_refused(plain: str) -> None:
    digest = hashlib.sha256(plain.encode()).hexdigest()
    with pytest.raises(SettingsError, match=r"keys weak: everybody knows this key.*windlass keys create") as refused:
        load({"keys": [{"name": "weak", "sha256": digest}]}, environ={})
    assert digest not in str(refused.value)


def test_a_named_file_must_exist(elsewhere: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        load(environ={"WINDLASS_CONFIG": str(elsewhere / "none.toml")})


def test_secrets_come_from_variables_and_stay_hidden(elsewhere: Path) -> None:
    _file(
        elsewhere,
        '[[providers]]\nname="up"\nbase_url="http://127.0.0.1:1/v1"\napi_key_env="UP_KEY"\nmodels=[{name="m"}]\n'
        f'[[keys]]\nname="k"\nsha256="{"ab" * 32}"\n',
    )
    settings = load(environ={"UP_KEY": "s3cret"})
    assert settings.secrets == {"up": "s3cret"}
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(flat(settings))
    assert "ab" * 32 not in str(flat(settings))
    assert missing_secrets(settings) == []
    assert "UP_KEY is not set" in missing_secrets(load(environ={}))[0]


def test_the_database_follows_the_home() -> None:
    assert Settings(home=Path("/x?a=b")).database == Path("/x?a=b/ledger.db")
    chosen = load({"storage.database_url": "postgresql+psycopg://h/d"}, environ={})
    assert chosen.database == "postgresql+psycopg://h/d"
