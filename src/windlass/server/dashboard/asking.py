"""The ask page: a question, its verified quotes, and what people say of them.

Asking changes the ledger, so it happens once: the form's GET asks and leads on to `/ask?a=<id>`, which only shows.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from windlass.content.ask import MAX_QUESTION_CHARS
from windlass.content.ingest import COLLECTION
from windlass.errors import InputError, RequestError, UpstreamError, WindlassError
from windlass.gateway.access.admission import Caller
from windlass.gateway.feedback import FeedbackRequest
from windlass.records import Scope
from windlass.server.dashboard.forms import form_of
from windlass.server.dashboard.site import Site

MAX_TRIED = 6
RATINGS = {"up": 1.0, "down": 0.0}
CONFIRMED = {
    "up": "Thank you. “Helpful” is in the ledger, and the policies learn from it.",
    "down": "Thank you. “Not helpful” is in the ledger, and the policies learn from it.",
    "correction": "Thank you. Your correction is in the ledger.",
}
_NONCE = re.compile(r"[0-9a-f]{16}")
_ANSWER = re.compile(r"answer_[0-9a-f]{1,64}")


async def page(site: Site, request: Request) -> Response:
    """The form; with `a` a kept answer; with `q` alone the question is asked, once."""
    caller = site.access.caller(request)
    question = request.query_params.get("q", "").strip()
    answer = request.query_params.get("a", "")
    if answer:
        return await asyncio.to_thread(_shown, site, request, caller.scope, answer, question)
    if not question:
        return await asyncio.to_thread(_empty, site, request, caller.scope, {})
    if _guessing(request):
        return Response(status_code=503, headers={"cache-control": "no-store"})
    if request.method != "GET" or not _meant(request):
        return await asyncio.to_thread(_empty, site, request, caller.scope, {"question": question, "unasked": True})
    return await _asked(site, request, caller, question)


async def feedback(site: Site, request: Request) -> Response:
    """A thumb or a correction, kept once however often the form is sent, then back to the answer."""
    caller = site.access.caller(request)
    form = await form_of(request)
    comment = form.get("comment", "").strip()
    if not site.access.vouches(request, form.get("token", "")):
        advice = "The server has started anew, or you have signed in again, since this page was made. Open the answer "
        advice += "again and send it once more."
        return site.problem(request, 403, "This form is out of date", advice, kept=comment)
    answer, kind = form.get("answer", ""), form.get("kind", "")
    said = _said(answer, kind, comment, form.get("nonce", ""))
    await site.runtime.feedback(caller.scope, said)
    kept = await asyncio.to_thread(site.answers.find, caller.scope, answer)
    if kept is not None:
        kept.rating = kind if kind in RATINGS else kept.rating
        kept.corrected = kept.corrected or kind == "correction"
    query = urlencode({"a": answer, "q": form.get("q", "")[:MAX_QUESTION_CHARS], "said": kind})
    return RedirectResponse(f"/ask?{query}#feedback", 303)


async def _asked(site: Site, request: Request, caller: Caller, question: str) -> Response:
    scope = caller.scope
    try:
        asked = await site.runtime.ask.ask(question, scope, caller=caller)
    except InputError as exc:
        return await asyncio.to_thread(_failed, site, request, scope, question, 400, "That cannot be asked", exc)
    except UpstreamError as exc:
        return await asyncio.to_thread(_failed, site, request, scope, question, 502, "The model gave no answer", exc)
    except WindlassError as exc:
        return await asyncio.to_thread(_failed, site, request, scope, question, 503, "Asking is not possible now", exc)
    await site.answers.keep(scope, asked)
    return RedirectResponse(f"/ask?{urlencode({'a': asked.id, 'q': asked.question})}", 303)


def _shown(site: Site, request: Request, scope: Scope, answer: str, question: str) -> Response:
    kept = site.answers.find(scope, answer)
    if kept is None:
        return _empty(site, request, scope, {"question": question, "lost": True}, 410)
    view = {
        "question": kept.asked.question,
        "kept": kept,
        "nonce": secrets.token_hex(8),
        "confirmed": CONFIRMED.get(request.query_params.get("said", ""), ""),
    }
    return _empty(site, request, scope, view)


def _failed(
    site: Site, request: Request, scope: Scope, question: str, status: int, title: str, exc: WindlassError
) -> Response:
    view = {"question": question[:MAX_QUESTION_CHARS], "failure": (title, str(exc))}
    return _empty(site, request, scope, view, status)


def _empty(site: Site, request: Request, scope: Scope, view: dict[str, Any], status: int = 200) -> Response:
    """The page around `view`. Reads what is in memory."""
    runtime = site.runtime
    counts = runtime.memory.counts(scope, COLLECTION)
    titles: tuple[str, ...] = ()
    tries: tuple[str, ...] = ()
    if counts.chunks and "kept" not in view:
        items = runtime.contents.items(scope)
        titles = tuple(item.title for item in items.values())
        tries = _tries(runtime.contents.headings(scope, list(items)[:200]))
    shell = {
        "question": "",
        "kept": None,
        "lost": False,
        "unasked": False,
        "failure": None,
        "nonce": "",
        "confirmed": "",
        "counts": counts,
        "titles": titles,
        "tries": tries,
        "limit": MAX_QUESTION_CHARS,
    }
    return site.page(request, "ask.html", {**shell, **view}, status)


def _tries(headings: tuple[str, ...]) -> tuple[str, ...]:
    """A few section headings, spread over the corpus, that make questions which memory can answer."""
    usable = list(dict.fromkeys(heading for heading in headings if 3 <= len(heading) <= 80 and " " in heading))
    step = max(1, len(usable) // MAX_TRIED)
    return tuple(usable[step // 2 :: step][:MAX_TRIED])


def _guessing(request: Request) -> bool:
    """Whether the browser fetches ahead, for a visit that may never come."""
    purpose = f"{request.headers.get('sec-purpose', '')} {request.headers.get('purpose', '')}".lower()
    return "prefetch" in purpose or "prerender" in purpose


def _meant(request: Request) -> bool:
    """Whether a person on our page, or at the address bar, sent this; a link or image elsewhere must not ask."""
    return request.headers.get("sec-fetch-site", "none") in ("same-origin", "none")


def _said(answer: str, kind: str, comment: str, nonce: str) -> FeedbackRequest:
    """The feedback in a form. Its id holds everything that makes it this one, so a second sending changes nothing."""
    if not _ANSWER.fullmatch(answer) or not _NONCE.fullmatch(nonce) or kind not in CONFIRMED:
        raise RequestError("the form is incomplete; open the answer again and send it once more")
    if kind == "correction" and not comment:
        raise RequestError("the correction is empty; write what the answer should have said")
    if "\0" in comment:
        raise RequestError("the correction holds a NUL character; remove it")
    digest = hashlib.sha256(f"{kind} {nonce} {comment}".encode()).hexdigest()[:24]
    fields = {
        "id": f"feedback_{answer}_{kind}_{digest}",
        "target": answer,
        "kind": kind if kind == "correction" else "rating",
        "value": RATINGS.get(kind),
        "comment": comment if kind == "correction" else "",
    }
    try:
        return msgspec.convert(fields, FeedbackRequest)
    except msgspec.ValidationError as exc:
        raise RequestError(f"that cannot be recorded: {exc}") from exc
