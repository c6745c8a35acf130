"""Everything that HTTP shows a tenant, and how a probe asks for it with the rival's keys."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import msgspec
from tests.conformance.tenancy_world import Probe, World
from tests.golden.application import Client as ApiClient
from tests.golden.application import chat

from windlass.gateway.endpoints import FOREIGN, RELAYED

SHOWN = (
    *("/", "/ask", "/calls", "/calls/{id}", "/feedback"),
    *("/decisions", "/decisions/{point}", "/decisions/{point}/change", "/providers", "/keys", "/prices"),
    *("/routing", "/experiments", "/experiments/{name}", "/experiments/{name}/step"),
    "/experiments/{name}/report.{kind}",
)
"""The pages that show a tenant's rows; `_page` asks them with each of `QUERY`."""
QUERY = (
    *("text", "model", "provider", "error", "endpoint", "user", "before", "range", "q", "a", "said", "point", "policy"),
    *("action", "live", "kind", "source", "metric", "target", "mode", "snapshot", "name", "after", "differ"),
)
PAGES = {*SHOWN, "/calls/{id}/feedback", "/events", "/login", "/logout", "/static/{name}"}
ENDPOINTS = {"/v1/chat/completions", "/v1/embeddings", "/v1/models", "/v1/feedback", "/healthz"}
ENDPOINTS |= {"/readyz", "/metrics", "/openapi.json"}
ENDPOINTS |= {f"/v1{path}" for path in RELAYED} | {f"/v1/{dialect}" for dialect in FOREIGN}
ASKED = {"ask", "ingest", "progress", "calls", "decisions", "doctor", "snapshots", "mode", "rollback", "forget"}
ASKED |= {
    "call",
    "history",
    "reload",
    "points",
    "feedback",
    "prices",
    "budgets",
    "providers",
    "keys",
    "key_create",
    "key_rotate",
    "key_revoke",
    "route",
    "graders",
    "grade",
    "agreement",
    "warm_start",
    "clusters",
}
TRYING = ("experiments", "experiment", "experiment_plan", "experiment_start", "experiment_advance", "experiment_stop")
TRYING += ("experiment_rollback", "experiment_ship", "promote", "always")
ASKED |= {*TRYING}


def _door(page: str) -> str:
    """A page or an answer without what changes by itself: the head of the ledger is the process's, not a tenant's."""
    places = (
        r'"snapshot":\d+|snapshot[ =]\d+|there are: [\d, ]+|<option value="\d+">|entry \d+'  # in the order of all rows
    )
    shown = "wl-[A-Za-z0-9_-]{5}"  # how a key begins, which is random
    return re.sub(rf'"head":\d+|data-head="\d+"|/static/[^"]+|{places}|{shown}', "", page)


async def _calls(world: World, probe: Probe) -> str:
    return await api(world, "calls", {"limit": 1 + probe.number % 100, "before": probe.text})


async def _decisions(world: World, probe: Probe) -> str:
    before = probe.text if probe.number % 2 else ""
    return await api(world, "decisions", {"limit": 100, "point": "" if before else probe.text, "before": before})


async def _reading(world: World, probe: Probe) -> str:
    """One call with its bodies, what was said of it, and how the points stand."""
    match probe.number % 3:
        case 0:
            return await api(world, "call", {"call": probe.text, "bodies": True})
        case 1:
            field = ("target", "text", "metric", "before")[probe.number // 3 % 4]
            return await api(world, "feedback", {"limit": 100, field: probe.text})
        case _:
            return await api(world, "points", {"point": probe.text} if probe.number % 2 else {})


async def _asking(world: World, probe: Probe) -> str:
    item = probe.text if probe.number % 2 else ""
    answer = await api(world, "ask", {"question": probe.text if not item else "What turns one way?", "item": item})
    return re.sub(r'"(took_ms|why|score|latency_ms|propensity)": ?[^,}]+', "", answer)


async def _ingesting(world: World, probe: Probe) -> str:
    return await api(world, "ingest", {"paths": [probe.text or "x"]})


async def _importing(world: World, probe: Probe) -> str:
    word = {"program": "langfuse", "source": "w", "at": 1.8e9, "kind": "praise", "by": "user", "metric": "m"}
    return await api(world, "history", {"said": [{**word, "group": probe.text}]})


async def _examining(world: World, _probe: Probe) -> str:
    report = await api(world, "doctor", {"replay": False})
    return re.sub(r'"[^"]*(?:planted|bare)[^"]*"', "", report)  # the two worlds' own folders


async def _priced(world: World, probe: Probe) -> str:
    return await api(world, "prices", {"model": probe.text[:50], "limit": 1 + probe.number % 100})


async def _standing(world: World, probe: Probe) -> str:
    """How limits and providers stand, by names of the owner's."""
    if probe.number % 2:
        return await api(world, "budgets", {"name": probe.text} if probe.number % 4 == 1 else {"limit": 200})
    field = ("provider", "model")[probe.number // 2 % 2]
    said = await api(world, "providers", {field: probe.text} if probe.number % 4 else {"since": 0.0})
    return re.sub(r'"(cursor|place|further)": ?\d+', "", said)  # places in the order of all rows


async def _routing(world: World, probe: Probe) -> str:
    """What the router would choose for the rival, of a call that it made, by ids of the owner's, what a warm start
    would cost, and the rival's clusters of prompts."""
    if probe.number % 5 == 0:
        return await api(world, "warm_start", {"prompts": 1 + probe.number % 100})
    if probe.number % 5 == 1:
        owner = {"tenant": probe.text} if probe.number % 2 else {"workspace": probe.text}
        return await api(world, "clusters", owner if probe.number % 3 else {})
    asked = {"call": probe.text or "x"} if probe.number % 2 else {"prompt": probe.text or "x"}
    return await api(world, "route", asked)


async def _grading(world: World, probe: Probe) -> str:
    """The rival has its calls graded, by ids and users of the owner's."""
    match probe.number % 3:
        case 0:
            return await api(world, "graders", {})
        case 1:
            return await api(world, "agreement", {"graders": [probe.text] if probe.number % 2 else []})
        case _:
            field = ("call", "user", "model", "before")[probe.number // 3 % 4]
            return await api(world, "grade", {field: probe.text, "dry": bool(probe.number % 2)})


async def _snapshots(world: World, _probe: Probe) -> str:
    return await api(world, "snapshots", {})


async def _deciding(world: World, probe: Probe) -> str:
    """The rival's own policies are switched and rolled back, whatever the owner's do."""
    point = probe.text if probe.number % 3 == 0 else "answer"
    if probe.number % 2:
        said = await api(world, "rollback", {"point": point, "snapshot": probe.number % 5, "reason": probe.text})
        return re.sub(r"(?<=snapshot=)\d+", "", said)  # snapshots have places in the order of all rows
    mode = ("off", "shadow", "live", "settings")[probe.number // 2 % 4]
    return await api(world, "mode", {"point": point, "mode": mode, "reason": probe.text})


async def _trying(world: World, probe: Probe) -> str:
    """The rival's own experiments, by names of the owner's: what there is, what is planned, and every step."""
    operation = TRYING[probe.number % len(TRYING)]
    named = {"name": probe.text} | ({"point": probe.text} if probe.number % 3 == 0 else {})
    plan = {"name": probe.text, "variants": {"usual": {"share": 0.5}, "b": {"share": 0.5, "action": probe.text}}}
    asked: dict[str, dict[str, Any]] = {
        "experiments": {"point": probe.text} if probe.number % 2 else {},
        "experiment_plan": {"plan": plan | {"size": 100}},
        "experiment_start": {"plan": plan | {"size": 100}, "reason": probe.text},
        "experiment_ship": named | {"force": True, "reason": "spite"},
        "promote": {"point": "model", "shadow": probe.text or "settings"},
        "always": {"point": "model", "action": probe.text or "echo"},
    }
    said = await api(world, operation, asked.get(operation, named))
    return re.sub(r'"(cursor|place|seq)": ?\d+', "", said)  # places in the order of all rows


async def _forgetting(world: World, probe: Probe) -> str:
    """The rival forgets a user who has the name of one of the owner's."""
    return await api(world, "forget", {"user": probe.text or "x", "reason": "asked to"})


async def _keyring(world: World, probe: Probe) -> str:
    """An admin of the rival lists, makes, rotates and revokes keys, by the names of the owner's, in its name too."""
    operation = ("keys", "key_create", "key_rotate", "key_revoke")[probe.number % 4]
    asked = {} if operation == "keys" else {"name": probe.text}
    if probe.number // 4 % 2:
        asked["tenant"] = probe.scope.tenant
    said = await api(world, operation, asked)
    # What is random of a key: itself, and how it begins.
    return re.sub(r'"(api_key|shown)": ?"[^"]*"', "", said)


async def _models(world: World, _probe: Probe) -> str:
    response = await ApiClient(world.app, bearer="secret-rival").get("/v1/models")
    return response.body.decode()


async def _scraping(world: World, _probe: Probe) -> str:
    """The sums of the deployment are none of a tenant's business, and its readiness names nobody."""
    client = ApiClient(world.app, bearer="secret-rival")
    response = await client.get("/metrics")
    assert response.status == 401
    return b"".join((response.body, *[(await client.get(path)).body for path in ("/readyz", "/openapi.json")])).decode()


async def _elsewhere(world: World, probe: Probe) -> str:
    """With the rival's key in a workspace of another name, as a header can hold it."""
    name = (probe.scope.workspace or probe.text).encode("ascii", "replace").decode().replace("\n", "")
    headers = {"x-windlass-workspace": name if name.strip() != "default" else "other"}
    response = await ApiClient(world.app, bearer="secret-rival").post("/api/calls", {"limit": 100}, **headers)
    assert response.status in (200, 401)
    return f"{response.status} {response.body.decode()}".replace(name, "")


async def _chatting(world: World, probe: Probe) -> str:
    """A call that claims to belong to one of the owner's things."""
    parent = probe.text.encode("ascii", "ignore").decode().replace("\n", "")
    client = ApiClient(world.app, bearer="secret-rival")
    response = await client.post("/v1/chat/completions", chat("hello"), **{"x-windlass-parent": parent})
    return f"{response.status} {response.json.get('choices')}"


async def _embedding(world: World, probe: Probe) -> str:
    """Vectors are made of what was sent, and of nothing that is kept."""
    wanted = {"model": "auto" if probe.number % 2 else "windlass-minilm", "input": probe.text}
    response = await ApiClient(world.app, bearer="secret-rival").post("/v1/embeddings", wanted)
    return f"{response.status} {response.body.decode()}"


async def _relaying(world: World, probe: Probe) -> str:
    """What goes up as it came: every such endpoint, and paths below `/v1` that hold one of the ids of the owner."""
    name = quote(probe.text, safe="", errors="replace") or "x"
    paths = (
        *sorted(RELAYED),
        *(f"/{dialect}" for dialect in FOREIGN),
        f"/files/{name}",
        f"/models/{name}",
        f"/responses/{name}",
    )
    wanted = {"model": ("echo", "auto", "")[probe.number % 3], "input": probe.text, "prompt": probe.text}
    client, path = ApiClient(world.app, bearer="secret-rival"), f"/v1{paths[probe.number // 3 % len(paths)]}"
    response = await (client.get(path) if path.endswith(name) else client.post(path, wanted))
    assert response.status != 500, response.body
    return f"{response.status} {response.body.decode(errors='replace')}"


async def _rating(world: World, probe: Probe) -> str:
    said = {"target": probe.text, "kind": "rating", "value": 0.0, "id": f"spite_{probe.number}"}
    response = await ApiClient(world.app, bearer="secret-rival").post("/v1/feedback", said)
    return response.body.decode()


async def _page(world: World, probe: Probe) -> str:
    text, number = quote(probe.text, safe="", errors="replace"), probe.number // 2
    where = re.sub(
        r"\{\w+\}",
        text or "x",
        SHOWN[number % len(SHOWN)].replace("{point}", "model" if number % 3 else "{point}").replace("{kind}", "md"),
    )
    asked = f"?range=all&{QUERY[number // len(SHOWN) % len(QUERY)]}={text}" if number % 5 else ""
    page = await world.signed_in[("rival", "looker")[probe.number % 2]].get(where + asked)
    return _door(f"{page.status} {page.headers.get('location', '')} {page.body}")


async def _saying(world: World, probe: Probe) -> str:
    """What the pages let a visitor say of one of the owner's calls or answers."""
    visitor = world.signed_in["looker"]
    token = (await visitor.get("/")).form("/logout")["token"]
    form = {"token": token, "kind": "complaint", "comment": "spite", "nonce": "0" * 16, "answer": probe.text}
    where = (
        f"/calls/{quote(probe.text, safe='', errors='replace') or 'x'}/feedback" if probe.number % 2 else "/feedback"
    )
    page = await visitor.post(where, form)
    return _door(f"{page.status} {page.headers.get('location', '')} {page.body}")


DOORS = (
    _calls,
    _reading,
    _decisions,
    _snapshots,
    _deciding,
    _trying,
    _forgetting,
    _asking,
    _ingesting,
    _importing,
    _examining,
    _priced,
    _standing,
    _routing,
    _grading,
    _keyring,
    _models,
    _scraping,
    _elsewhere,
    _chatting,
    _embedding,
    _relaying,
    _saying,
    _rating,
    _page,
    _page,
)


async def api(world: World, operation: str, arguments: dict[str, Any]) -> str:
    response = await ApiClient(world.app, bearer="secret-rival").post(f"/api/{operation}", arguments)
    assert response.status < 500, response.body
    return _door(f"{response.status} {msgspec.json.encode(response.json).decode()}")
