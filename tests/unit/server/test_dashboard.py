"""The pages as a browser without script sees them."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.golden.application import NOW, key
from tests.unit.server.dashboard.visitor import Page, Visitor, called, folded, query, visiting

from windlass.content.ask import Asked
from windlass.errors import LedgerError, UpstreamError
from windlass.gateway.feedback import FeedbackRequest
from windlass.gateway.providers.echo import Echo
from windlass.ledger import check
from windlass.ledger.ledger import Body
from windlass.records import Feedback, Scope
from windlass.runtime import Runtime
from windlass.server.dashboard import access
from windlass.server.dashboard.answers import Answers
from windlass.testing import Clock, MemoryLedger

CSP = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'"
FLOOD = "/ask?q=What+happens+when+the+river+floods%3F"


async def answered(visitor: Visitor, address: str = FLOOD) -> Page:
    asked = await visitor.get(address)
    assert asked.status == 303, asked.text
    return await visitor.get(asked.location)


def feedback(runtime: Runtime) -> list[Feedback]:
    return [
        e.record for e in runtime.ledger.read(Scope()) if isinstance(e.record, Feedback) and e.record.source == "user"
    ]


async def test_an_empty_overview_tells_how_to_make_a_call(tmp_path: Path) -> None:
    async with visiting(tmp_path) as (visitor, _):
        page = await visitor.get("/")
    assert page.status == 200
    assert "Nothing has turned yet" in page.text
    assert "curl http://127.0.0.1:8321/v1/chat/completions" in page.text
    assert "authorization" not in page.text.lower()


async def test_the_overview_shows_calls_latency_models_and_what_was_learned(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(Echo("echo", "parrot"),)) as (visitor, runtime):
        first = await called(runtime, model="auto")
        await called(runtime)
        page = await visitor.get("/?range=all")
    assert "Calls 2 Errors 0 Cost $0 Latency" in page.text
    assert f'id="{first}"' in page.body
    assert "Which model answers?" in page.text
    assert "linear_thompson@1 chose it among 2 with a chance of 50 %" in page.text
    assert "asked for by name" in page.text
    assert "2 calls in 1 hour of the 24 shown." in page.text
    assert [named["aria-current"] for named in page.all("a") if "aria-current" in named] == ["page", "true"]


async def test_errors_stand_out_with_their_cause(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(Echo("broken", failing=("broken",)),)) as (visitor, runtime):
        with pytest.raises(UpstreamError):
            await called(runtime, model="broken")
        await folded(runtime)
        page = await visitor.get("/")
    assert "Errors 1 100 %" in page.text
    assert [named for named in page.all("span") if named.get("class") == "chip bad"]


@pytest.mark.parametrize(
    "address", ["/?range=nonsense", "/?range=", "/?before=call_unknown", "/?range=1h&before=%00%ff"]
)
async def test_odd_queries_are_pages_too(tmp_path: Path, address: str) -> None:
    async with visiting(tmp_path, providers=(Echo(),)) as (visitor, runtime):
        await called(runtime)
        assert (await visitor.get(address)).status == 200


async def test_feedback_stands_beside_its_call(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(Echo(),), points={"answer": {"mode": "off"}}) as (visitor, runtime):
        call = await called(runtime)
        for said in (
            {"kind": "rating", "value": 1.0},
            {"kind": "rating", "value": 0.0, "metric": "tone"},
            {"kind": "rating", "value": 0.5, "metric": "citation_verified", "source": "qa"},
            {"kind": "correction"},
        ):
            await runtime.feedback(Scope(), msgspec.convert({"target": call, **said}, FeedbackRequest))
        page = await visitor.get("/")
    assert "helpful not helpful quotes verified 50 % correction" in page.text


async def test_older_calls_are_a_link_away(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(Echo(),)) as (visitor, runtime):
        calls = [await called(runtime, f"number {count}") for count in range(25)]
        newest = await visitor.get("/")
        older = await visitor.get(
            next(a["href"] for a in newest.all("a") if a.get("id") == "calls-older").split("#")[0]
        )
    shown = [[one["id"] for one in page.all("details") if one["id"].startswith("call_")] for page in (newest, older)]
    assert shown == [calls[:4:-1], calls[4::-1]]
    assert "Older calls" in older.text


async def test_every_response_carries_the_strict_policy_and_nothing_inline(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(Echo(),)) as (visitor, runtime):
        await called(runtime, "x", "auto")
        pages = [await visitor.get(path) for path in ("/", "/ask", "/nowhere", "/static/style.css", "/static/no.css")]
        pages.append(await visitor.post("/feedback", {}))
    assert [page.status for page in pages] == [200, 200, 404, 200, 404, 403]
    for page in pages:
        assert page.headers["content-security-policy"] == CSP
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["referrer-policy"] == "same-origin"
        for tag, named in page.tags:
            assert "style" not in named
            assert not [name for name in named if name.startswith("on")], (tag, named)
            assert tag != "style"
            assert tag != "script" or named["src"].startswith("/static/")
        assert not re.search(r'(?:src|href|action)="(?!/|#|")', page.body), "no address leads outside"


async def test_a_drawing_has_a_name_a_summary_and_a_table(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(Echo("a", "b"),)) as (visitor, runtime):
        await called(runtime, model="auto")
        page = await visitor.get("/")
    drawings = page.all("svg")
    ids = [named["id"] for _, named in page.tags if "id" in named]
    assert len(ids) == len(set(ids)), "ids are unique"
    assert len(drawings) >= 5
    for drawing in drawings:
        if drawing.get("aria-hidden") != "true":
            assert drawing["role"] == "img"
            assert {drawing["aria-labelledby"], drawing["aria-describedby"]} <= set(ids)
    assert "Show as table Hour (UTC) Calls Errors Cost p50 p95 p99 15 Jan 08:00 1 0" in page.text


async def test_the_script_gets_the_parts_alone(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(Echo(),)) as (visitor, runtime):
        await called(runtime)
        whole, part = await visitor.get("/"), await visitor.get("/", x_partial="1")
    assert part.headers["x-partial"] == "1"
    assert part.headers["vary"] == "x-partial"
    assert not part.all("header")
    assert not part.all("script")
    assert [named["id"] for named in part.all("section")] == [named["id"] for named in whole.all("section")]
    assert part.all("section")[0]["data-head"] == str(runtime.overview.cursor)


async def test_static_files_are_kept_for_good_and_revalidated(tmp_path: Path) -> None:
    async with visiting(tmp_path) as (visitor, _):
        page = await visitor.get("/")
        address = page.all("link")[0]["href"]
        style = await visitor.get(address)
        again = await visitor.get(address, if_none_match=style.headers["etag"])
        stale = await visitor.get("/static/style.css?v=0000")
        escape = [await visitor.get(path) for path in ("/static/../pages.py", "/static/..%2fpages.py", "/static/")]
    assert style.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert (again.status, again.body) == (304, "")
    assert stale.headers["cache-control"] == "no-cache"
    assert [page.status for page in escape] == [404, 404, 404]


async def test_the_first_load_is_small(tmp_path: Path) -> None:
    async with visiting(tmp_path, providers=(Echo("a", "b"),)) as (visitor, runtime):
        for count in range(20):
            await called(runtime, f"{count}", "auto")
        page = await visitor.get("/")
        script = page.all("script")[0]
        addresses = {link["href"] for link in page.all("link")} | {script["src"], script["data-shared"]}
        size = len(page.body.encode()) + sum([len((await visitor.get(a)).body.encode()) for a in addresses])
    assert len(addresses) == 4
    assert size <= 60_000


async def test_an_answer_shows_its_quotes_with_speaker_and_time(tmp_path: Path, transcripts: Path) -> None:
    async with visiting(tmp_path, transcripts / "injected.md") as (visitor, _):
        page = await answered(visitor)
    assert page.status == 200
    assert "The outer pair of gates is shut" in page.text
    assert "Guest [How a tidal lock works 00:01:36]" in page.text
    link = next(named for named in page.all("a") if named.get("id", "").startswith("quote-"))
    assert link["href"] == "https://example.org/episodes/how-a-tidal-lock-works.mp3#t=96"
    assert {"noopener", "noreferrer"} <= set(link["rel"].split())
    assert "Why linear_thompson@1 p=1.000" in page.text
    assert "Model local/quotes-fast Took" in page.text
    assert "Search by words only" in page.text


async def test_showing_an_answer_again_asks_nothing(tmp_path: Path, transcripts: Path) -> None:
    async with visiting(tmp_path, transcripts / "injected.md") as (visitor, runtime):
        asked = await visitor.get(FLOOD)
        before = runtime.ledger.head()
        for _ in range(3):
            assert (await visitor.get(asked.location)).status == 200
        assert runtime.ledger.head() == before


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"sec_purpose": "prefetch;prerender"}, 503),
        ("GET", {"purpose": "prefetch"}, 503),
        ("GET", {"sec_fetch_site": "cross-site"}, 200),
        ("GET", {"sec_fetch_site": "same-site"}, 200),
        ("HEAD", {}, 200),
    ],
)
async def test_what_nobody_meant_is_not_asked(
    tmp_path: Path, transcripts: Path, method: str, headers: dict[str, str], status: int
) -> None:
    async with visiting(tmp_path, transcripts / "injected.md") as (visitor, runtime):
        before = runtime.ledger.head()
        page = await visitor.get(FLOOD, method, **headers)
        assert runtime.ledger.head() == before
    assert page.status == status
    if "sec_fetch_site" in headers:
        assert "Not asked yet" in page.text
        assert next(i["value"] for i in page.all("input") if i["name"] == "q") == "What happens when the river floods?"


async def test_what_memory_does_not_hold_is_said_plainly(tmp_path: Path, transcripts: Path) -> None:
    async with visiting(tmp_path, transcripts / "sample.md") as (visitor, _):
        page = await answered(visitor, "/ask?q=capital+of+Mongolia")
    assert "Not in memory." in page.text
    assert "It should be in memory" in page.text
    assert not page.all("blockquote")


async def test_an_empty_memory_tells_how_to_fill_it(tmp_path: Path) -> None:
    async with visiting(tmp_path) as (visitor, _):
        page = await visitor.get("/ask")
    assert "Memory is empty" in page.text
    assert "windlass ingest" in page.text


async def test_memory_is_summed_up_with_headings_to_ask_about(tmp_path: Path, transcripts: Path) -> None:
    async with visiting(tmp_path, transcripts / "sample.md", transcripts / "injected.md") as (visitor, _):
        page = await visitor.get("/ask")
    assert "2 items in 6 passages, found by words." in page.text
    assert "/ask?q=What+is+said+about+Reading+the+bottom%3F" in [query_of(a) for a in page.all("a")]


def query_of(link: dict[str, str]) -> str:
    return link["href"].replace("%20", "+")


async def test_text_from_a_transcript_stays_text(tmp_path: Path) -> None:
    evil = '<img src=x onerror="alert(1)"><script>alert(2)</script>"\'>{{ 7 * 7 }}'
    talk = tmp_path / "evil.md"
    talk.write_text(
        f"---\ntitle: 'The keel {evil.replace(chr(39), chr(39) * 2)}'\nmedia: 'javascript:alert(1)'\n---\n\n"
        f"## Keel {evil}\n\nHost{evil}: 00:00:01\n\nThe keel of the barge is oak. {evil}\n"
    )
    async with visiting(tmp_path / "home", talk) as (visitor, _):
        pages = [await visitor.get("/ask"), await answered(visitor, "/ask?q=What+is+the+keel+of+the+barge%3F")]
        pages.append(await visitor.get(f"/ask?q={'%3Cscript%3Ealert(3)%3C/script%3E'}", sec_fetch_site="cross-site"))
    assert "The keel of the barge is oak." in pages[1].text
    for page in pages:
        assert len(page.all("script")) == 1
        assert "49" not in page.text
        assert {named["src"][:8] for named in page.all("img")} == {"/static/"}
        assert not [named for named in page.all("a") if "javascript" in named["href"]]


async def test_a_thumb_lands_in_the_ledger_once(tmp_path: Path, transcripts: Path) -> None:
    async with visiting(tmp_path, transcripts / "injected.md") as (visitor, runtime):
        page = await answered(visitor)
        fields = page.form("/feedback", kind="up")
        first, second = await visitor.post("/feedback", fields), await visitor.post("/feedback", fields)
        after = await visitor.get(first.location.split("#")[0])
        down = await visitor.post("/feedback", after.form("/feedback", kind="down"))
        said = feedback(runtime)
    assert (first.status, second.status, down.status) == (303, 303, 303)
    assert query(first.location.split("#")[0])["said"] == "up"
    assert "is in the ledger" in after.text
    assert [named["aria-pressed"] for named in after.all("button") if "aria-pressed" in named] == ["true", "false"]
    assert [(one.kind, one.value, one.metric) for one in said] == [
        ("rating", 1.0, "quality"),
        ("rating", 0.0, "quality"),
    ]
    assert said[0].target == fields["answer"]
    assert said[0].target.startswith("answer_")


async def test_a_correction_keeps_its_words(tmp_path: Path, transcripts: Path) -> None:
    async with visiting(tmp_path, transcripts / "injected.md") as (visitor, runtime):
        fields = (await answered(visitor)).form("/feedback", kind="correction")
        words = "It is the *inner* pair; ünïcode & <b>bold</b>"
        await visitor.post("/feedback", fields | {"comment": f"  {words}\r\n"})
        await visitor.post("/feedback", fields | {"comment": words})
        await visitor.post("/feedback", fields | {"comment": "another"})
        said = feedback(runtime)
    assert [(one.kind, one.value, one.comment) for one in said] == [
        ("correction", None, words),
        ("correction", None, "another"),
    ]


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"token": ""}, 403, "out of date"),
        ({"token": "0" * 64}, 403, "out of date"),
        ({"token": "é"}, 403, "out of date"),
        ({"kind": "delete"}, 400, "incomplete"),
        ({"nonce": "x"}, 400, "incomplete"),
        ({"answer": "call_00"}, 400, "incomplete"),
        ({"answer": "../../etc"}, 400, "incomplete"),
        ({"kind": "correction", "comment": "   "}, 400, "empty"),
        ({"kind": "correction", "comment": "x" * 10_001}, 400, "10000"),
        ({"kind": "correction", "comment": "a\0b"}, 400, "NUL"),
        ({"comment": "x" * 70_000}, 413, "65536"),
    ],
)
async def test_a_bent_form_changes_nothing(
    tmp_path: Path, transcripts: Path, change: dict[str, str], status: int, says: str
) -> None:
    async with visiting(tmp_path, transcripts / "injected.md") as (visitor, runtime):
        fields = (await answered(visitor)).form("/feedback", kind="up")
        before = runtime.ledger.head()
        page = await visitor.post("/feedback", fields | change)
        assert runtime.ledger.head() == before
    assert page.status == status
    assert says.lower() in page.text.lower()


async def test_a_form_out_of_date_gives_the_words_back(tmp_path: Path) -> None:
    async with visiting(tmp_path) as (visitor, _):
        page = await visitor.post("/feedback", {"token": "old", "comment": "three <b>lines</b> of thought"})
    assert page.status == 403
    assert "three <b>lines</b> of thought" in page.text


async def test_forms_of_other_kinds_and_sites_are_refused(tmp_path: Path) -> None:
    async with visiting(tmp_path) as (visitor, _):
        multipart = await visitor.post("/feedback", {"a": "b"}, **{"content-type": "multipart/form-data; boundary=x"})
        foreign = await visitor.post("/feedback", {"a": "b"}, origin="https://example.org")
        nobody = await visitor.post("/feedback", {"a": "b"}, origin="null")
        wrong = await visitor.get("/logout")
    assert (multipart.status, foreign.status, nobody.status, wrong.status) == (415, 403, 403, 405)
    assert wrong.headers["allow"] == "POST"


@pytest.mark.parametrize("body", [b"\xff\xfe", b"&".join(b"a=b" for _ in range(100)), b"comment=%ff"])
async def test_a_broken_form_is_the_visitors_mistake(tmp_path: Path, body: bytes) -> None:
    async with visiting(tmp_path) as (visitor, _):
        headers = {"content-type": "application/x-www-form-urlencoded"}
        assert (await visitor.send("POST", "/feedback", body, headers)).status == 400


async def test_an_answer_is_kept_for_a_day_for_every_worker_of_its_owner() -> None:
    now, ledger = Clock(), MemoryLedger()
    one, other = Answers(ledger, now, limit=2), Answers(ledger, now)
    asked = [_asked(f"answer_{count}") for count in range(3)]
    for answer in asked:
        await one.keep(Scope(), answer)
    for worker in (one, other):
        found = [worker.find(Scope(), answer.id) for answer in asked]
        assert [kept.asked if kept else None for kept in found] == asked
        assert worker.find(Scope("else"), "answer_1") is None
        assert worker.find(Scope(), "answer_7") is None
    now.forward(86_401)
    assert Answers(ledger, now).find(Scope(), "answer_1") is None
    await ledger.append(check.call("call_1", Scope()), Body(
        id="call_1-reply", at=now(), call="call_1", role="reply", data=b"no answer", expires_at=now() + 9))  # fmt: skip
    assert other.find(Scope(), "call_1") is None


def _asked(ident: str) -> Asked:
    numbers: dict[str, Any] = {"dropped": 0, "lexical_only": True, "latency_ms": 1.0, "cost_nusd": 0}
    return Asked(id=ident, answered=False, quotes=(), question="", call="", model="", why="", **numbers)


async def test_an_answer_outlives_its_process_for_a_day_and_is_offered_again_then(
    tmp_path: Path, transcripts: Path
) -> None:
    async with visiting(tmp_path, transcripts / "injected.md") as (visitor, _):
        location = (await visitor.get(FLOOD)).location
    async with visiting(tmp_path) as (visitor, runtime):
        before = runtime.ledger.head()
        assert (await visitor.get(location)).status == 200
        assert runtime.ledger.head() == before
    async with visiting(tmp_path, clock=lambda: NOW + 86_401) as (visitor, _):
        page = await visitor.get(location)
    assert page.status == 410
    assert "no longer here" in page.text
    assert page.forms[0]["q"] == "What happens when the river floods?"


@pytest.mark.parametrize(
    ("raised", "status", "says"),
    [
        (UpstreamError("the model is away", status=None), 502, "The model gave no answer The model is away."),
        (LedgerError("disk is full"), 503, "Asking is not possible now Disk is full."),
    ],
)
async def test_a_question_that_fails_keeps_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, status: int, says: str
) -> None:
    async def failing(*_: Any, **__: Any) -> None:
        raise raised

    async with visiting(tmp_path) as (visitor, runtime):
        monkeypatch.setattr(runtime.ask, "ask", failing)
        page = await visitor.get("/ask?q=Why%3F")
    assert page.status == status
    assert says in page.text
    assert page.forms[0]["q"] == "Why?"


async def test_a_question_of_any_bytes_is_answered_or_refused(tmp_path: Path, transcripts: Path) -> None:
    async with visiting(tmp_path, transcripts / "injected.md") as (visitor, _):
        for question in ("%00", "a%00b", "%ff%fe", "%ED%A0%80", "%F0%9F%98%80", "%22*%20OR%20NEAR(", "%0d%0ax:%20y"):
            page = await visitor.get(f"/ask?q={question}")
            assert page.status in (200, 303, 400), (question, page.text)
            assert "x" not in page.headers


async def test_an_overlong_question_is_explained(tmp_path: Path) -> None:
    async with visiting(tmp_path) as (visitor, _):
        page = await visitor.get(f"/ask?q={'x' * 4_001}")
    assert page.status == 400
    assert "A question has 1 to 4000 characters" in page.text


@pytest.mark.parametrize(("raised", "status"), [(LedgerError("disk is full"), 503), (ZeroDivisionError("secret"), 500)])
async def test_failures_are_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, status: int
) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise raised

    async with visiting(tmp_path) as (visitor, runtime):
        monkeypatch.setattr(runtime.ledger, "calls", failing)
        page = await visitor.get("/")
    assert page.status == status
    assert page.headers["content-security-policy"] == CSP
    assert ("Disk is full" in page.text) == (status == 503)
    assert "secret" not in page.text


class TestKeys:
    """With keys configured, everything but the login takes a session."""

    KEYS = (key("ann", "acme", "design", "ops"), key("bob", "bolt", role="viewer"))

    async def sign_in(self, visitor: Visitor, secret: str, workspace: str = "", onward: str = "/") -> Page:
        page = await visitor.get("/login")
        fields = page.form("/login") | {"key": secret, "workspace": workspace, "next": onward}
        return await visitor.post("/login", fields)

    async def test_without_a_session_there_is_only_the_login(self, tmp_path: Path) -> None:
        async with visiting(tmp_path, keys=self.KEYS) as (visitor, runtime):
            pages = [await visitor.get(path) for path in ("/", "/ask?q=why", "/events", "/static/style.css")]
            post = await visitor.post("/feedback", {"kind": "up"})
            assert runtime.ledger.head() == 0
        assert [page.status for page in pages] == [303, 303, 401, 200]
        assert pages[1].location == "/login?next=%2Fask%3Fq%3Dwhy"
        assert post.status == 401

    async def test_a_key_opens_its_own_workspace(self, tmp_path: Path) -> None:
        async with visiting(tmp_path, keys=self.KEYS, providers=(Echo(),)) as (visitor, runtime):
            await called(runtime, key="secret-bob")
            entered = await self.sign_in(visitor, "secret-ann", "ops", "/?range=7d")
            page = await visitor.get("/")
        assert (entered.status, entered.location) == (303, "/?range=7d")
        assert "acme / ops" in page.text
        assert "Nothing has turned yet" in page.text, "another tenant's call is not shown"
        assert "authorization: Bearer $WINDLASS_KEY" in page.text

    async def test_the_cookie_is_strict_and_holds_no_key(self, tmp_path: Path) -> None:
        async with visiting(tmp_path, keys=self.KEYS) as (visitor, _):
            entered = await self.sign_in(visitor, "secret-ann")
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "secret" not in cookie.partition(";")[0]

    @pytest.mark.parametrize(("secret", "workspace"), [("wrong", ""), ("", ""), ("secret-ann", "else"), ("\udcff", "")])
    async def test_a_wrong_key_stays_outside(self, tmp_path: Path, secret: str, workspace: str) -> None:
        async with visiting(tmp_path, keys=self.KEYS) as (visitor, _):
            page = await self.sign_in(visitor, secret.encode(errors="surrogateescape").decode("latin-1"), workspace)
            assert (await visitor.get("/")).status == 303
        assert page.status == 401
        assert not visitor.cookies

    @pytest.mark.parametrize("onward", ["//example.org", "https://example.org", "/\\example.org", "", "/a\r\nx: y"])
    async def test_a_login_leads_nowhere_else(self, tmp_path: Path, onward: str) -> None:
        async with visiting(tmp_path, keys=self.KEYS) as (visitor, _):
            assert (await self.sign_in(visitor, "secret-ann", onward=onward)).location == "/"

    async def test_signing_out_ends_the_session(self, tmp_path: Path) -> None:
        async with visiting(tmp_path, keys=self.KEYS) as (visitor, _):
            await self.sign_in(visitor, "secret-ann")
            kept = dict(visitor.cookies)
            page = await visitor.get("/")
            unsigned = await visitor.post("/logout", {"token": "x"})
            left = await visitor.post("/logout", page.form("/logout"))
            visitor.cookies = kept
            assert (await visitor.get("/")).status == 303, "the old cookie is worth nothing"
        assert (unsigned.status, left.status, left.location) == (403, 303, "/login")

    async def test_a_session_ends_when_nobody_uses_it(self, tmp_path: Path) -> None:
        now = [NOW]
        async with visiting(tmp_path, keys=self.KEYS, clock=lambda: now[0]) as (visitor, _):
            await self.sign_in(visitor, "secret-ann")
            now[0] += 11 * 3600
            assert (await visitor.get("/")).status == 200
            now[0] += 11 * 3600
            assert (await visitor.get("/")).status == 200, "use keeps it open"
            now[0] += 13 * 3600
            assert (await visitor.get("/")).status == 303

    async def test_the_oldest_sessions_give_way(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(access, "MAX_VISITS", 2)
        now = itertools.count(NOW)
        async with visiting(tmp_path, keys=self.KEYS, clock=lambda: next(now)) as (first, _):
            visitors = [first, Visitor(first.app), Visitor(first.app)]
            for visitor in visitors:
                await self.sign_in(visitor, "secret-ann")
            assert [(await visitor.get("/")).status for visitor in visitors] == [303, 200, 200]
            assert (await visitors[1].get("/login")).location == "/"

    async def test_an_answer_is_its_owners_alone(self, tmp_path: Path) -> None:
        async with visiting(tmp_path, keys=self.KEYS) as (ann, _):
            bob = Visitor(ann.app)
            await self.sign_in(ann, "secret-ann")
            await self.sign_in(bob, "secret-bob")
            asked = await ann.get("/ask?q=Where+is+the+anchor%3F")
            assert (await ann.get(asked.location)).status == 200
            assert (await bob.get(asked.location)).status == 410
            stolen = (await ann.get(asked.location)).form("/feedback", kind="up")
            assert (await bob.post("/feedback", stolen)).status == 403, "a token of another session"
