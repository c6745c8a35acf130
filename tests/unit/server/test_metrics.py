"""`/metrics` of a real application: who may see it, and that it tells what happened."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families as families
from tests.golden.application import DONE, LAST, NOW, Client, chat, event, key, opened, streaming

from windlass.errors import AccessError, ErrorCategory, LedgerError
from windlass.gateway.access.admission import Caller
from windlass.gateway.providers.echo import Echo
from windlass.ledger.ledger import ALL, Snapshot
from windlass.ledger.workers import Worker
from windlass.records import Outcome, Scope
from windlass.runtime import Runtime
from windlass.server.app import Windlass
from windlass.server.metrics import HEARD_S, allow
from windlass.watch.metrics.figures import WorkerFigures

CHAT = "/v1/chat/completions"
KEYS = [
    key("owner", "default"),
    key("viewer", "default", role="viewer"),
    key("ops", "acme"),
    key("boss", "acme", role="admin"),
]
LIMITS = [
    {"name": "daily", "usd": 2.0, "window": "day"},
    {"name": "two", "requests": 2, "per": "user", "window": "hour"},
]


@asynccontextmanager
async def served(home: Path, **changes: Any) -> AsyncIterator[tuple[Runtime, Client]]:
    async with opened(home, [Echo()], **changes) as runtime:
        yield runtime, Client(Windlass(runtime, token="folder-token"))


async def values(client: Client, **headers: str) -> dict[str, float]:
    response = await client.get("/metrics", **headers)
    assert response.status == 200, response.body
    return {
        f"{sample.name}{{{','.join(f'{k}={v}' for k, v in sorted(sample.labels.items()))}}}": sample.value
        for family in families(response.body.decode())
        for sample in family.samples
    }


async def test_it_tells_what_the_ledger_holds_and_what_memory_does(tmp_path: Path) -> None:
    async with served(tmp_path, limits=LIMITS) as (runtime, client):
        statuses = [(await client.post(CHAT, chat(user="ann"))).status for _ in range(4)]
        statuses.append((await client.post(CHAT, chat(user="ben", stream=True))).status)
        assert statuses == [200, 200, 429, 429, 200]
        found = await values(client)
        ended = [one.record for one in runtime.ledger.read(ALL) if isinstance(one.record, Outcome)]
        assert (
            found["windlass_calls_total{endpoint=chat,error=,model=echo,provider=echo,status=200}"] == len(ended) == 3
        )
        assert found["windlass_tokens_total{kind=prompt,model=echo,provider=echo}"] == sum(
            o.prompt_tokens for o in ended
        )
        assert found["windlass_worker_limit_refusals_total{limit=two,worker=main}"] == 2
        assert found["windlass_worker_http_responses_total{status=429,worker=main}"] == 2
        assert found["windlass_worker_limit_used_ratio{limit=two,measure=requests,worker=main}"] == 1.0
        assert found["windlass_budget_remaining_usd{limit=daily,window=day}"] == 2.0
        assert found["windlass_worker_call_overhead_seconds_count{worker=main}"] == 2, "of those that are not streamed"
        assert found["windlass_worker_in_flight_calls{worker=main}"] == 0
        assert found["windlass_decisions_total{action=echo,mode=live,point=model,policy=named@1}"] == 3
        assert found["windlass_worker_ledger_commit_seconds_count{worker=main}"] >= 1, "several calls share a commit"
        assert found["windlass_worker_ledger_waiting_appends{worker=main}"] == 0
        assert (found["windlass_ready{}"], found["windlass_totals_complete{}"]) == (1, 1)
        again = await values(client)
        assert again["windlass_worker_http_responses_total{status=200,worker=main}"] == 4, "the scrape before is one"


async def test_calls_under_way_and_open_streams_are_counted_until_they_end(tmp_path: Path) -> None:
    going_on = asyncio.Event()
    upstream = streaming(event("a"), going_on, LAST, DONE)
    async with opened(tmp_path, [upstream]) as runtime:
        client = Client(Windlass(runtime))
        call = asyncio.create_task(client.post(CHAT, chat(model="m", stream=True)))
        for _ in range(200):
            found = await values(client)
            if found["windlass_worker_open_streams{kind=calls,worker=main}"]:
                break
            await asyncio.sleep(0.01)
        assert found["windlass_worker_open_streams{kind=calls,worker=main}"] == 1
        assert found["windlass_worker_in_flight_calls{worker=main}"] == 1, "the scrape itself is no call"
        going_on.set()
        assert (await call).status == 200
        found = await values(client)
        assert found["windlass_worker_open_streams{kind=calls,worker=main}"] == 0
        assert found["windlass_worker_in_flight_calls{worker=main}"] == 0


async def test_a_client_that_leaves_is_counted_out(tmp_path: Path) -> None:
    upstream = streaming(event("a"), asyncio.Event())
    async with opened(tmp_path, [upstream]) as runtime:
        app = Windlass(runtime)
        leaver = Client(app)
        call = asyncio.create_task(leaver.post(CHAT, chat(model="m", stream=True)))
        for _ in range(200):
            if (await values(Client(app)))["windlass_worker_open_streams{kind=calls,worker=main}"]:
                break
            await asyncio.sleep(0.01)
        leaver.leave.set()
        await call
        found = await values(Client(app))
        assert found["windlass_worker_open_streams{kind=calls,worker=main}"] == 0
        assert found["windlass_worker_in_flight_calls{worker=main}"] == 0


async def test_the_owners_operator_and_the_folders_token_may_scrape(tmp_path: Path) -> None:
    async with served(tmp_path, keys=KEYS) as (_, client):
        assert (await client.get("/metrics", authorization="Bearer secret-owner")).status == 200
        assert (await client.get("/metrics", x_windlass_token="folder-token")).status == 200
        for headers in (
            {}, {"authorization": "Bearer wrong"}, {"x_windlass_token": "wrong"},
            *({"authorization": f"Bearer secret-{name}"} for name in ("viewer", "ops", "boss")),
        ):  # fmt: skip
            response = await client.get("/metrics", **headers)
            assert (response.status, b"windlass_" in response.body) == (401, False), headers
        assert (await client.post("/metrics", authorization="Bearer secret-owner")).status == 405


@pytest.mark.parametrize(
    ("caller", "let_in"),
    [
        (Caller(Scope(), "operator", "k", endpoints=("metrics",)), True),
        (Caller(Scope(), "operator", "k", endpoints=("chat", "metrics")), True),
        (Caller(Scope(), "admin", "k", endpoints=("chat",)), False),
        (Caller(Scope("acme"), "admin", "k", endpoints=("metrics",)), False),
        (Caller(Scope("acme"), "admin", "k"), False),
        (Caller(Scope(), "viewer", "k"), False),
        (Caller(Scope(), "admin", ""), True),
    ],
)
def test_who_may_see_sums_over_all_tenants(caller: Caller, let_in: bool) -> None:
    if let_in:
        allow(caller)
    else:
        with pytest.raises(AccessError):
            allow(caller)


async def test_no_label_names_a_tenant_a_user_or_a_key(tmp_path: Path) -> None:
    limits = [{"name": "each", "usd": 9.0, "per": "user", "window": "day"}, *LIMITS]
    async with served(tmp_path, keys=KEYS, limits=limits) as (_, client):
        for name in ("ops", "boss"):
            assert (await client.post(CHAT, chat(user="zoe"), authorization=f"Bearer secret-{name}")).status == 200
        text = (await client.get("/metrics", authorization="Bearer secret-owner")).body.decode()
        assert "windlass_calls_total{" in text
        assert not [word for word in ("acme", "zoe", "ops", "boss", "secret") if word in text]


async def test_a_breaker_that_opens_is_shown(tmp_path: Path) -> None:
    async with served(tmp_path) as (runtime, client):
        breakers = runtime.gateway.resilience.breakers
        for _ in range(5):
            breakers.failed(("p", "m"), breakers.admit(("p", "m")), ErrorCategory.CONNECT_REFUSED)
        found = await values(client)
        assert found["windlass_worker_breaker_state{model=m,provider=p,worker=main}"] == 2


async def test_a_database_that_cannot_be_read_leaves_what_memory_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path) as (runtime, client):

        def away(*_args: object, **_named: object) -> None:
            raise LedgerError("away", category=ErrorCategory.DATABASE_UNREACHABLE)

        with monkeypatch.context() as broken, structlog.testing.capture_logs() as logged:
            broken.setattr(runtime.db, "read", away)
            found = await values(client)
        assert found["windlass_not_ready{check=database}"] == 1
        assert found["windlass_totals_complete{}"] == 0
        assert found["windlass_worker_in_flight_calls{worker=main}"] == 0
        of_it = [one for one in logged if one["event"].startswith("metrics")]
        assert of_it == [], "what is known to be away is not asked again, and not told of at every scrape"


async def test_workers_of_one_database_are_told_of_by_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others' rows are read for living workers; what is old, broken, or of another release is left out."""
    async with served(tmp_path) as (runtime, client):
        app: Any = client.app
        own: WorkerFigures = await app._metrics.figures()
        at = runtime.clock()
        rows = {
            "two": (at - 1, msgspec.json.encode(msgspec.structs.replace(own, worker="two", in_flight=7))),
            "hangs": (at - HEARD_S - 1, msgspec.json.encode(msgspec.structs.replace(own, worker="hangs"))),
            "older": (at, b'{"worker": "older"}'),
        }
        for name, (told_at, state) in rows.items():
            runtime.ledger.save_snapshot(
                Snapshot(projection=f"worker {name}", version=1, cursor=0, at=told_at, state=state)
            )
        living = [Worker(name=name, pid=1, at=at, head=0, cursor=0) for name in ("main", *rows, "silent")]
        monkeypatch.setattr(runtime, "workers", lambda: living)
        app._metrics._shared = True
        with structlog.testing.capture_logs() as logged:
            found = await values(client)
        assert found["windlass_workers{}"] == 2
        assert found["windlass_worker_in_flight_calls{worker=two}"] == 7
        assert [one["worker"] for one in logged if one["event"] == "figures_unread"] == ["older"]


async def test_a_worker_tells_its_figures_until_it_is_stopped(tmp_path: Path) -> None:
    async with served(tmp_path) as (runtime, client):
        app: Any = client.app
        await app._metrics.tell()  # alone it has nobody to tell
        app._metrics._shared = True
        telling = asyncio.create_task(app._metrics.tell())
        for _ in range(200):
            kept = runtime.ledger.snapshot("worker main", 1)
            if kept is not None:
                break
            await asyncio.sleep(0.01)
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        assert kept is not None
        assert kept.at == NOW
        assert msgspec.json.decode(kept.state, type=WorkerFigures).worker == "main"


def test_a_server_that_nobody_scrapes_has_not_loaded_prometheus(tmp_path: Path) -> None:
    program = (
        "import sys; import windlass.server.app, windlass.server.serve; "
        "print([name for name in sys.modules if name.startswith(('prometheus', 'windlass.watch.metrics.store'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
