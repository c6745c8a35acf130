"""Virtual keys over HTTP: only admins handle them, only their tenant's, and what a key may not do it may not do."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.golden.application import NOW, Client, chat, key, opened
from tests.unit.server.dashboard.visitor import Visitor

from windlass.errors import AccessError, LimitReached
from windlass.gateway.access.keys import VirtualKey
from windlass.gateway.gateway import Request
from windlass.gateway.options import LimitOptions
from windlass.gateway.providers.echo import Echo
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.server import doctor, keys
from windlass.server.app import Windlass
from windlass.server.dashboard.pages import dashboard

KEYS = [
    key("boss", "acme", "default", "other", role="admin"),
    key("op", "acme"),
    key("narrow", "acme", "other", role="admin"),
    key("far", "rival", role="admin"),
]
TOKEN = {"x-windlass-token": "folder-token"}


def _client(runtime: Runtime, bearer: str = "") -> Client:
    return Client(Windlass(runtime, token="folder-token"), bearer=bearer)


async def _made(client: Client, name: str = "ann", **asked: Any) -> str:
    response = await client.post("/api/key_create", {"name": name, **asked})
    assert response.status == 200, response.body
    return str(response.json["api_key"])


async def test_a_key_is_made_used_rotated_and_revoked(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("echo")], keys=KEYS) as runtime:
        boss = _client(runtime, "secret-boss")
        plain = await _made(boss, team="red", models=["echo"], expires="30d")
        assert (await _client(runtime, plain).post("/v1/chat/completions", chat())).status == 200
        rotated = (await boss.post("/api/key_rotate", {"name": "ann", "grace": "0"})).json["api_key"]
        assert (await _client(runtime, plain).post("/v1/chat/completions", chat())).status == 401
        assert (await _client(runtime, rotated).post("/v1/chat/completions", chat())).status == 200
        (listed,) = (await boss.post("/api/keys", {})).json["keys"]
        assert (listed["name"], listed["team"], listed["state"]) == ("ann", "red", "good")
        assert listed["expires_at"] == NOW + 30 * 86_400
        assert listed["shown"] == rotated[:8]
        assert (await boss.post("/api/key_revoke", {"name": "ann"})).json["key"]["state"] == "revoked"
        assert (await _client(runtime, rotated).post("/v1/chat/completions", chat())).status == 401
        rows = runtime.audit.rows(Scope("acme"))
        assert [(row.action, row.actor) for row in reversed(rows)] == [
            ("key_created", "key:boss"),
            ("key_rotated", "key:boss"),
            ("key_revoked", "key:boss"),
        ]
        assert json.loads(rows[-1].detail)["models"] == ["echo"]


async def test_the_first_key_closes_an_open_server(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("echo")]) as runtime:
        anyone = _client(runtime)
        assert (await anyone.post("/v1/chat/completions", chat())).status == 200
        response = await anyone.post("/api/key_create", {"name": "ann"})
        assert response.json["first"] is True
        assert (await anyone.post("/v1/chat/completions", chat())).status == 401
        assert (await anyone.post("/api/key_create", {"name": "bob"})).status == 401
        assert (await anyone.post("/api/key_create", {"name": "bob"}, **TOKEN)).json["first"] is False
        named = await _client(runtime, response.json["api_key"]).get("/v1/models", host="windlass.example")
        assert named.status == 200, "with keys, other names of the host are served"


async def test_only_admins_handle_keys(tmp_path: Path) -> None:
    async with opened(tmp_path, keys=KEYS) as runtime:
        await _made(_client(runtime, "secret-boss"))
        for operation in ("keys", "key_create", "key_rotate", "key_revoke"):
            asked = {} if operation == "keys" else {"name": "ann"}
            response = await _client(runtime, "secret-op").post(f"/api/{operation}", asked)
            assert response.status == 401, operation
            assert (await _client(runtime).post(f"/api/{operation}", asked)).status == 401
        assert len(runtime.audit.rows(Scope("acme"))) == 1


async def test_an_admin_reaches_no_other_tenant(tmp_path: Path) -> None:
    async with opened(tmp_path, keys=KEYS) as runtime:
        plain = await _made(_client(runtime, "secret-boss"))
        far = _client(runtime, "secret-far")
        assert (await far.post("/api/keys", {})).json == {"keys": []}
        for operation, asked in (("keys", {}), ("key_create", {"name": "x"}), ("key_revoke", {"name": "ann"})):
            response = await far.post(f"/api/{operation}", {**asked, "tenant": "acme"})
            assert response.status == 401, operation
        for operation in ("key_rotate", "key_revoke"):
            assert (await far.post(f"/api/{operation}", {"name": "ann"})).status == 400
        assert runtime.keys.find(plain)
        assert await _made(far), "the same name is free in another tenant"


async def test_the_folders_owner_may_name_any_tenant(tmp_path: Path) -> None:
    async with opened(tmp_path, keys=KEYS) as runtime:
        owner = _client(runtime)
        made = await owner.post("/api/key_create", {"name": "ann", "tenant": "acme", "workspaces": ["w"]}, **TOKEN)
        assert made.json["key"]["tenant"] == "acme"
        assert (await owner.post("/api/keys", {}, **TOKEN)).json == {"keys": []}
        assert len((await owner.post("/api/keys", {"tenant": "acme"}, **TOKEN)).json["keys"]) == 1
        (row,) = runtime.audit.rows(Scope("acme", "w"))
        assert (row.actor, row.action) == ("local", "key_created")


async def test_a_key_gives_no_more_than_it_has(tmp_path: Path) -> None:
    """Neither a workspace beyond its own, nor freedom from its own scopes and limits."""
    async with opened(tmp_path, keys=KEYS) as runtime:
        boss, narrow = _client(runtime, "secret-boss"), _client(runtime, "secret-narrow")
        await _made(boss)
        assert (await narrow.post("/api/key_create", {"name": "x"})).status == 401
        assert (await narrow.post("/api/key_rotate", {"name": "ann"})).status == 400
        assert (await narrow.post("/api/keys", {})).json == {"keys": []}
        assert await _made(narrow, "mine", workspaces=["other"])
        limits: tuple[dict[str, Any], ...] = ({"models": ["a"]}, {"endpoints": ["chat"]}, {"rpm": 1}, {"budget_usd": 1})
        for number, limit in enumerate(limits):
            plain = await _made(boss, f"limited-{number}", role="admin", **limit)
            for operation in ("key_create", "key_rotate", "key_revoke"):
                response = await _client(runtime, plain).post(f"/api/{operation}", {"name": "ann"})
                assert response.status == 401, (operation, limit)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"name": ""},
        {"name": 5},
        {"name": "x" * 65},
        {"name": "a b"},
        {"name": "a\n"},
        {"name": "../a"},
        {"name": "\x00"},
        {"name": "é"},
        {"name": "a", "tenant": "../x"},
        {"name": "a", "team": "a/b"},
        {"name": "a", "workspaces": []},
        {"name": "a", "workspaces": ["w"] * 3 + [""]},
        {"name": "a", "workspaces": [f"w{number}" for number in range(101)]},
        {"name": "a", "role": "god"},
        {"name": "a", "models": [""]},
        {"name": "a", "models": ["x" * 101]},
        {"name": "a", "models": "gpt"},
        {"name": "a", "endpoints": ["chatt"]},
        {"name": "a", "expires": "0"},
        {"name": "a", "expires": "-1d"},
        {"name": "a", "expires": "yesterday"},
        {"name": "a", "expires": "99999999d"},
        {"name": "a", "budget_usd": -0.01},
        {"name": "a", "budget_usd": 1e300},
        {"name": "a", "budget_usd": "many"},
        {"name": "a", "window": "year"},
        {"name": "a", "rpm": -1},
        {"name": "a", "rpm": 1.5},
        {"name": "a", "tpm": 10**30},
        {"name": "a", "concurrent": True},
        {"name": "a", "sha256": "0" * 64},
        {"name": "a", "id": "key_1"},
    ],
)
async def test_nonsense_makes_no_key(tmp_path: Path, asked: dict[str, Any]) -> None:
    async with opened(tmp_path) as runtime:
        response = await _client(runtime).post("/api/key_create", asked, **TOKEN)
        assert response.status == 400, response.body
        assert len(response.body) < 1_000
        assert not runtime.keys.all()
        assert not runtime.audit.rows(Scope())


async def test_a_name_of_the_settings_is_taken(tmp_path: Path) -> None:
    """Two keys of one name would share their limits and be one in the audit trail."""
    async with opened(tmp_path, keys=KEYS) as runtime:
        response = await _client(runtime, "secret-boss").post("/api/key_create", {"name": "op"})
        assert response.status == 400
        assert "the settings have a key 'op'" in response.json["error"]["message"]


@pytest.mark.parametrize(
    ("limit", "name"),
    [
        ({"rpm": 2}, "rate of the key"),
        ({"tpm": 10_000}, "rate of the key"),
        ({"budget_usd": 0.0}, "budget of the key"),
        ({"concurrent": 0}, "calls at once of the key"),
    ],
)
async def test_the_limits_of_a_key_are_kept(tmp_path: Path, limit: dict[str, Any], name: str) -> None:
    model = {"name": "dear", "prompt_usd_per_million": 1.0, "completion_usd_per_million": 1.0}
    upstream = {"name": "up", "base_url": "http://127.0.0.1:1/v1", "models": [model]}
    async with opened(tmp_path, [Echo("echo")], upstreams=[upstream], keys=KEYS) as runtime:
        boss = _client(runtime, "secret-boss")
        limited = _client(runtime, await _made(boss, **limit))
        free = _client(runtime, await _made(boss, "free"))
        wanted = chat(model="dear" if "budget_usd" in limit else "echo", max_tokens=15_000)
        answers = [await limited.post("/v1/chat/completions", wanted) for _ in range(3)]
        refused = answers[-1]
        assert refused.status == 429, refused.body
        assert f"limit '{name}'" in refused.json["error"]["message"]
        assert "rpm" not in limit or int(refused.headers["retry-after"]) > 0
        assert (await free.post("/v1/chat/completions", chat())).status == 200
        if "rpm" in limit:
            assert [answer.status for answer in answers] == [200, 200, 429]
            plain = (await boss.post("/api/key_rotate", {"name": "ann"})).json["api_key"]
            again = await _client(runtime, plain).post("/v1/chat/completions", wanted)
            assert again.status == 429, "a rotated key begins no new count"


async def test_scopes_hold_at_the_door(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("echo", "parrot")], keys=KEYS) as runtime:
        plain = await _made(_client(runtime, "secret-boss"), models=["ech*"], endpoints=["chat"])
        client = _client(runtime, plain)
        assert (await client.post("/v1/chat/completions", chat())).status == 200
        assert (await client.post("/v1/chat/completions", chat(model="auto"))).status == 200
        assert (await client.post("/v1/chat/completions", chat(model="parrot"))).status in (401, 403)
        other = await client.post("/v1/responses", {"model": "echo", "input": "x"})
        assert other.status in (401, 403)
        assert "may not use model 'echo' at the endpoint 'responses'" in other.json["error"]["message"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"window": "day"}, "window is 'day', of no budget; give budget_usd as well, or leave window out"),
        ({"budget_usd": 4e-10}, "budget_usd is 0.0000000004, less than a nano-dollar; give 0.000000001 at least, or 0"),
    ],
)
async def test_a_budget_that_cannot_be_meant_is_refused(tmp_path: Path, asked: dict[str, Any], said: str) -> None:
    async with opened(tmp_path, [Echo("echo")], keys=KEYS) as runtime:
        answer = await _client(runtime, "secret-boss").post("/api/key_create", {"name": "ann", **asked})
        assert (answer.status, said in answer.json["error"]["message"]) == (400, True), answer.body
        assert runtime.keys.all() == []


@pytest.mark.parametrize("usd", [0, 1e-9, 18e-6])
async def test_the_smallest_budgets_are_kept_as_they_are(tmp_path: Path, usd: float) -> None:
    async with opened(tmp_path, [Echo("echo")], keys=KEYS) as runtime:
        await _made(_client(runtime, "secret-boss"), budget_usd=usd)
        (key,) = runtime.keys.all()
        assert [(limit.usd, limit.window) for limit in key.limits] == [(usd, "month")]


async def test_a_model_that_nobody_offers_is_a_warning(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("echo", "parrot")], keys=KEYS) as runtime:
        boss = _client(runtime, "secret-boss")
        asked = {"name": "a", "models": ["ech0", "gpt-5*", "par*"]}
        first, second = (await boss.post("/api/key_create", asked)).json["warnings"]
        assert "'ech0', which fits no model of the settings by now; did you mean 'echo'?" in first
        assert "'gpt-5*'" in second
        assert "there are echo, local/quotes-fast" in second
        for models in ([], ["*"], ["echo", "par*"]):
            made = await boss.post(
                "/api/key_create", {"name": f"b{len(models)}{models[:1] == ['*']}", "models": models}
            )
            assert made.json["warnings"] == []
    async with opened(tmp_path, [Echo("*")], keys=KEYS) as runtime:
        made = await _client(runtime, "secret-boss").post("/api/key_create", {"name": "c", "models": ["gpt-5*"]})
        assert made.json["warnings"] == [], "a provider of every name may have it"


@pytest.mark.parametrize(
    ("scopes", "listed"),
    [
        ({}, ["auto", "echo", "parrot", "m", "vectors", "local/quotes-fast"]),
        ({"models": ["ech*"]}, ["auto", "echo"]),
        ({"models": ["ech*"], "endpoints": ["chat"]}, ["auto", "echo"]),
        ({"models": ["vec*", "m"], "endpoints": ["embeddings"]}, ["m", "vectors"]),
        ({"models": ["vec*"], "endpoints": ["chat"]}, []),
        ({"models": ["nothing*"]}, []),
        ({"endpoints": ["metrics"]}, []),
        ({"endpoints": ["chat"]}, ["auto", "echo", "parrot", "m", "local/quotes-fast"]),
    ],
)
async def test_no_model_beyond_a_key_is_listed(tmp_path: Path, scopes: dict[str, Any], listed: list[str]) -> None:
    named = [{"name": "m"}, {"name": "vectors", "serves": "embeddings"}]
    upstream = {"name": "up", "base_url": "http://127.0.0.1:1/v1", "models": named}
    async with opened(tmp_path, [Echo("echo", "parrot")], upstreams=[upstream], keys=KEYS) as runtime:
        client = _client(runtime, await _made(_client(runtime, "secret-boss"), **scopes))
        answer = await client.get("/v1/models")
        assert [one["id"] for one in answer.json["data"]] == listed
        for name in ("auto", "echo", "parrot", "m", "vectors", "local/quotes-fast"):
            found = await client.get(f"/v1/models/{name}")
            assert (found.status == 200) == (name in listed), name
            if found.status != 200:
                assert (found.status, found.code) == (404, "model_not_found")
        unknown = await client.get("/v1/models/nobody")
        assert unknown.status == 404
        assert (b"echo" in unknown.body) == (not scopes), "who may not use all is told no names"


async def test_a_key_for_messages_alone_has_auto_and_fallbacks(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("echo", "parrot")], keys=KEYS, gateway__auto=["echo"]) as runtime:
        scopes = {"endpoints": ["messages"], "models": ["echo"]}
        client = _client(runtime, await _made(_client(runtime, "secret-boss"), **scopes))
        listed = await client.get("/v1/models")
        assert [one["id"] for one in listed.json["data"]] == ["auto", "echo"]
        body = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
        assert (await client.post("/v1/messages", body)).status == 200
        assert (await client.post("/v1/chat/completions", chat(model="auto"))).status == 401


async def test_a_model_that_is_not_there_tells_a_key_with_scopes_no_names(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("echo", "parrot")], keys=KEYS) as runtime:
        client = _client(runtime, await _made(_client(runtime, "secret-boss"), models=["ech*"]))
        answers = [
            await client.post("/v1/chat/completions", chat(model="echo-9")),
            await client.get("/v1/models/echo-9"),
            await client.get("/v1/models/parrot"),
        ]
        for answer in answers:
            assert (answer.status, answer.code) == (404, "model_not_found")
            assert b"parrot" not in answer.body
        for name in ("parrot", "nobody"):
            for path, body in (("chat/completions", chat(model=name)), ("embeddings", {"model": name, "input": "a"})):
                refused = await client.post(f"/v1/{path}", body)
                assert (refused.status, refused.code) == (401, "scope_denied"), "the key is good, and is told no more"


async def test_revoking_a_key_ends_its_sessions(tmp_path: Path) -> None:
    async with opened(tmp_path, [Echo("echo")]) as runtime:
        app = Windlass(runtime, token="folder-token", dashboard=dashboard(runtime))
        visitor = Visitor(app)
        assert (await visitor.get("/calls")).status == 200, "without keys nobody signs in"
        owner = Client(app)
        plain = (await owner.post("/api/key_create", {"name": "ann"}, **TOKEN)).json["api_key"]
        assert (await visitor.get("/calls")).status == 303, "the first key closes open pages"
        form = (await visitor.get("/login")).form("/login")
        assert (await visitor.post("/login", {**form, "key": plain})).status == 303
        assert (await visitor.get("/calls")).status == 200
        await owner.post("/api/key_rotate", {"name": "ann", "grace": "0"}, **TOKEN)
        assert (await visitor.get("/calls")).status == 200, "a rotation keeps who is signed in"
        await owner.post("/api/key_revoke", {"name": "ann"}, **TOKEN)
        assert (await visitor.get("/calls")).status == 303


async def test_doctor_says_when_the_secret_was_lost(tmp_path: Path) -> None:
    async with opened(tmp_path) as runtime:
        plain = await _made(_client(runtime))
        assert not doctor.lost_keys(runtime.keys)
    (tmp_path / "keys.secret").unlink()
    async with opened(tmp_path) as runtime:
        assert runtime.keys.find(plain) is None
        report = (await _client(runtime).post("/api/doctor", {}, **TOKEN)).json
        (finding,) = [one for one in report["findings"] if "key secret" in one]
        assert "ann (default)" in finding
        assert (await _client(runtime).post("/api/keys", {}, **TOKEN)).json["keys"][0]["state"] == "lost"
        await _client(runtime).post("/api/key_rotate", {"name": "ann"}, **TOKEN)
        assert not doctor.lost_keys(runtime.keys)


@pytest.mark.parametrize("asked", [keys.TenantAsked, keys.CreateAsked, keys.RotateAsked, keys.RevokeAsked])
def test_every_argument_is_documented(asked: type[msgspec.Struct]) -> None:
    section = (Path(__file__).parents[3] / "docs" / "reference" / "api.md").read_text().split("### Keys")[1]
    assert [field for field in asked.__struct_fields__ if f"`{field}`" not in section] == []


async def test_a_process_follows_what_another_one_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass.runtime.KEYS_EVERY_S", 0.01)
    async with opened(tmp_path) as here, opened(tmp_path) as there:
        following = asyncio.create_task(there._follow_keys())
        plain = await _made(_client(here))
        for _ in range(500):
            if there.keys.find(plain):
                break
            await asyncio.sleep(0.01)
        assert there.keys.find(plain)
        following.cancel()


async def test_a_question_keeps_to_the_scopes_and_limits_of_its_key(tmp_path: Path) -> None:
    """Asking from memory calls a model as well; a key that may not call it may not ask."""
    limit = LimitOptions(name="few", requests=1, window="total")
    async with opened(tmp_path / "home") as runtime:
        made = VirtualKey(id="", name="asker", tenant="default", limits=(limit,))
        _, plain = await asyncio.to_thread(runtime.keys.create, made)
        caller = runtime.gateway.admission.identify(plain, "")
        request = Request(
            b'{"model":"auto","messages":[{"role":"user","content":"It holds.\\n\\nWhat?"}]}', caller=caller
        )
        await runtime.gateway.complete(request)
        with pytest.raises(LimitReached, match="few"):
            await runtime.gateway.complete(request)
        await asyncio.to_thread(runtime.keys.revoke, "default", "asker")
        with pytest.raises(AccessError):
            await runtime.gateway.complete(request)
