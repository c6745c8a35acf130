"""One call: what was decided and why, what came of it, what was said of it, and a form to say more."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from windlass.errors import PolicyError, RequestError
from windlass.gateway.feedback import FeedbackRequest
from windlass.gateway.wire import Tally, parse_chat
from windlass.ledger.ledger import Body, CallTrace
from windlass.policies.points import shadow_place
from windlass.policies.policy import Arm
from windlass.records import Decision, Outcome
from windlass.runtime import Runtime
from windlass.server.dashboard import charts, words
from windlass.server.dashboard.forms import form_of
from windlass.server.dashboard.ranges import asked
from windlass.server.dashboard.rows import routed, said
from windlass.server.dashboard.site import Site

log = structlog.get_logger(__name__)
SHOWN_CHARS = 20_000
UNEXPLAINED = "it could not explain what it knows today"
SCORES = {"1": "Good", "0.5": "Partly", "0": "Not good"}
KINDS = ("rating", "correction", "suggestion", "complaint", "praise")
SOURCES = ("user", "manager", "qa")
_NONCE = re.compile(r"[0-9a-f]{16}\Z")


@dataclass(frozen=True)
class Chance:
    """One action that could be taken. share: of the propensity, None where the record does not part it."""

    action: str
    taken: bool
    share: float | None
    drawing: Markup
    arm: Arm | None


@dataclass(frozen=True)
class Made:
    """A decision with its alternatives. together: the chance of all actions that were not taken."""

    decision: Decision
    shadow: str
    account: str
    chances: tuple[Chance, ...]
    together: float


@dataclass(frozen=True)
class Talk:
    """What was sent or received, as text. cut: characters that are left out."""

    role: str
    parts: tuple[tuple[str, str], ...]
    size: int
    cut: int


@dataclass(frozen=True)
class Moment:
    """One thing that happened, `after_ms` after the call came in."""

    after_ms: float
    what: str
    detail: str


async def page(site: Site, request: Request) -> Response:
    """The page of one call, or 404."""
    caller = site.access.caller(request)

    def drawn() -> Response:
        head = site.runtime.overview.cursor
        trace = site.runtime.ledger.trace(caller.scope, request.path_params["id"])
        if trace is None:
            advice = "No call of yours has this address. It may belong to another workspace; the list has all of yours."
            return site.problem(request, 404, "No such call", advice)
        return site.page(request, "call.html", {"head": head, **_view(site, request, trace)})

    return await asyncio.to_thread(drawn)


async def feedback(site: Site, request: Request) -> Response:
    """What somebody says of a call, kept once however often the form is sent."""
    caller = site.access.caller(request)
    call, form = request.path_params["id"], await form_of(request)
    comment = form.get("comment", "").strip()
    if not site.access.vouches(request, form.get("token", "")):
        advice = "The server has started anew, or you have signed in again, since this page was made. Open the call "
        advice += "again and send it once more."
        return site.problem(request, 403, "This form is out of date", advice, kept=comment)
    if await asyncio.to_thread(site.runtime.ledger.trace, caller.scope, call) is None:
        raise RequestError("that call is not in the ledger; nothing was recorded", status=404)
    kept = await site.runtime.feedback(caller.scope, _said(call, form, comment).said_by(caller))
    await site.runtime.caught_up()
    return RedirectResponse(f"/calls/{call}?said={kept.kind}#feedback", 303)


def _view(site: Site, request: Request, trace: CallTrace) -> dict[str, Any]:
    runtime = site.runtime
    call, outcome = trace.call, trace.outcome
    chosen = routed(trace)
    kind = asked(request, "said")
    return {
        "trace": trace,
        "why": why(chosen, outcome),
        "made": [_made(runtime, decision) for decision in trace.decisions],
        "moments": moments(trace),
        "drawing": charts.span(call.id, outcome.first_byte_ms, outcome.latency_ms) if outcome else "",
        "talks": [_talk(body, stream=call.stream) for body in runtime.ledger.bodies(call.scope, call.id)],
        "keeps": runtime.settings.gateway.keep_bodies,
        "given": [(one, said(one)) for one in trace.feedback],
        "nonce": secrets.token_hex(8),
        "kinds": KINDS,
        "sources": SOURCES,
        "scores": SCORES,
        "confirmed": f"Thank you. Your {kind} is in the ledger, and the policies learn from it."
        if kind in KINDS
        else "",
    }


def why(decision: Decision | None, outcome: Outcome | None) -> str:
    """Why this model, in one sentence with its numbers."""
    if decision is None:
        return "Nothing was decided about the model of this call."
    others = len(decision.actions) - 1
    if decision.fallback:
        text = f"{decision.policy} could not decide ({decision.fallback}), so the default {decision.action} was taken"
    elif not others:
        text = f"{decision.action} was asked for by name, so there was nothing to decide"
    else:
        rest = words.plural(others, "other")
        text = f"{decision.policy} chose {decision.action} with a chance of {words.percent(decision.propensity)}, "
        text += f"which left {words.percent(1 - decision.propensity)} to {rest}"
    account = words.plain(str(decision.extra.get("why", "")))
    text += f": {account}." if account else "."
    if outcome is not None:
        text += f" It took {words.ms(outcome.latency_ms)} and cost {words.usd(outcome.cost_nusd)}."
    return text


def moments(trace: CallTrace) -> list[Moment]:
    """What happened, in order."""
    start, outcome = trace.call.at, trace.outcome
    found = [Moment(0.0, "Asked", f"{trace.call.endpoint}, model “{trace.call.model}”")]
    for made in trace.decisions:
        kind = "decided" if made.live else f"in shadow, {made.extra.get('shadow', made.policy)} would have chosen"
        detail = f"{made.action}, chance {words.percent(made.propensity)} among {len(made.actions)}"
        found.append(Moment(1000 * (made.at - start), f"{made.point}: {kind}", detail))
    if outcome is not None:
        if 0.0 < outcome.first_byte_ms < outcome.latency_ms:
            found.append(Moment(outcome.first_byte_ms, "First byte", f"from {outcome.provider}"))
        ended = f"{outcome.error.replace('_', ' ')}, status {outcome.status}" if outcome.error else "complete"
        found.append(Moment(outcome.latency_ms, "Failed" if outcome.error else "Answered", ended))
    found += [Moment(1000 * (one.at - start), f"{one.source.capitalize()} said", said(one)) for one in trace.feedback]
    return sorted(found, key=lambda moment: moment.after_ms)


def _made(runtime: Runtime, decision: Decision) -> Made:
    shadow = str(decision.extra.get("shadow", ""))
    arms = _arms(runtime, decision, shadow)
    rest = 1.0 - decision.propensity
    chances: list[Chance] = []
    for action in decision.actions:
        taken = action == decision.action
        share = decision.propensity if taken else rest if len(decision.actions) == 2 else None
        chances.append(Chance(action, taken, share, charts.share(share or 0.0), (arms or {}).get(action)))
    chances.sort(key=lambda chance: not chance.taken)
    account = words.plain(str(decision.extra.get("why", "")))
    if arms is None:
        account = "; ".join(filter(None, (account, UNEXPLAINED)))
    return Made(decision, shadow, account, tuple(chances), rest)


def _arms(runtime: Runtime, decision: Decision, shadow: str) -> dict[str, Arm] | None:
    """What that policy knows today of each action; nothing where another policy stands there now, None where it fails
    to say."""
    place = shadow_place(decision.point, shadow) if shadow else decision.point
    if runtime.loop.ids.get(place) != decision.policy:
        return {}
    try:
        arms = runtime.loop.explain(decision.point, decision.scope, decision.context, decision.actions, shadow)
    except PolicyError:
        return {}
    if not arms:
        log.warning("policy_could_not_explain", policy=decision.policy, point=decision.point, call=decision.call)
        return None
    return {arm.action: arm for arm in arms if arm.mean is not None}


def _talk(body: Body, *, stream: bool) -> Talk:
    """The words in a request or a reply; what cannot be read as a chat is shown as it is."""
    raw = body.data.decode(errors="replace")
    parts: list[tuple[str, str]] = []
    try:
        if body.role == "request":
            parts = [(message.role, message.text) for message in parse_chat(body.data).messages]
        else:
            tally = Tally(stream=stream or body.data.startswith(b"data:"))
            tally.feed(body.data)
            tally.end()
            parts = [("assistant", tally.text)] if tally.text else []
    except RequestError:
        parts = []
    return _cut(body.role, parts or [("as it came", raw)], len(body.data))


def _cut(role: str, parts: Sequence[tuple[str, str]], size: int) -> Talk:
    """No more than `SHOWN_CHARS` of all parts together."""
    left = SHOWN_CHARS
    shown: list[tuple[str, str]] = []
    for name, text in parts:
        if left > 0:
            shown.append((name[:100], text[:left]))
        left -= len(text)
    return Talk(role, tuple(shown), size, max(0, -left))


def _said(call: str, form: dict[str, str], comment: str) -> FeedbackRequest:
    """The feedback in the form; its id holds everything that makes it this one."""
    kind, value = form.get("kind", ""), form.get("value", "")
    if not _NONCE.match(form.get("nonce", "")) or kind not in KINDS or form.get("source") not in SOURCES:
        raise RequestError("the form is incomplete; open the call again and send it once more")
    if kind == "rating" and value not in SCORES:
        raise RequestError("a rating needs a score; choose one and send it once more")
    if kind not in ("rating", "praise") and not comment:
        raise RequestError(f"the {kind} is empty; write what you mean")
    parts = (form["nonce"], kind, value, form["source"], form.get("metric", ""), comment)
    digest = hashlib.sha256("\n".join(parts).encode(errors="replace")).hexdigest()[:24]
    fields: dict[str, Any] = {
        "id": f"feedback_{call}_{digest}"[:200],
        "target": call,
        "kind": kind,
        "source": form["source"],
        "metric": form.get("metric", "").strip() or "quality",
        "value": float(value) if kind == "rating" else None,
        "comment": comment,
    }
    try:
        return msgspec.convert(fields, FeedbackRequest)
    except msgspec.ValidationError as exc:
        raise RequestError(f"that cannot be recorded: {exc}") from exc
