"""The experiment pages: what was tried, what one has come to and how sure that is, and the steps that people take.

A step is confirmed on a page of its own and then recorded; who may only look sees no form.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from windlass.errors import InputError, RequestError
from windlass.gateway.access.admission import RANK, Caller, require
from windlass.gateway.options import Role
from windlass.improve.experiments.report import markdown
from windlass.policies.rollout import Advance, Begin
from windlass.policies.trials.tally import Trial
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.server import experiments
from windlass.server.dashboard import experiment_report, tried
from windlass.server.dashboard.forms import form_of
from windlass.server.dashboard.ranges import address, asked
from windlass.server.dashboard.site import Site
from windlass.server.points import Switch

PAGE: Final = 30
_STALE: Final = "The server has started anew, or you have signed in again, since this page was made. Nothing changed."


class Deed(NamedTuple):
    """A step that people take. told: what it does."""

    role: Role
    button: str
    told: str
    take: Callable[[Runtime, Caller, dict[str, Any]], Awaitable[dict[str, Any]]]


DEEDS: Final = {
    "advance": Deed(
        "operator", "Go on", "The candidates get the shares of the next stage at once.", experiments.advance
    ),
    "stop": Deed(
        "operator", "Stop", "It ends without a decision, and everybody gets what is usual again.", experiments.stop
    ),
    "rollback": Deed(
        "operator", "Roll back", "It ends as harmful, and everybody gets what is usual again.", experiments.roll_back
    ),
    "ship": Deed("approver", "Ship", "It ends, and everybody gets this variant from now on.", experiments.ship),
}


class Stage(NamedTuple):
    """One stage of a ramp. part: of their shares that candidates get. at: when it began, None where it has not."""

    number: int
    part: float
    at: float | None
    by: str
    now: bool


async def page(site: Site, request: Request) -> Response:
    """All experiments of the workspace, the newest first; those in one state where that is asked for."""
    caller = site.access.caller(request)
    state, after = asked(request, "state"), asked(request, "after")

    def drawn() -> Response:
        head = site.runtime.overview.cursor
        found, older = _leafed(_known(site.runtime, caller.scope, state), after)
        shown = [experiments.viewed(experiments.find(site.runtime, caller.scope, id)) for id in found]
        view = {
            "head": head,
            "experiments": [tried.headline(one) for one in shown],
            "states": experiments.STATES,
            "state": state,
            "after": after,
            "older": address("/experiments", {"state": state, "after": older}) if older else "",
            "newest": address("/experiments", {"state": state}),
        }
        return site.page(request, "experiments.html", view)

    return await asyncio.to_thread(drawn)


async def one(site: Site, request: Request) -> Response:
    """One experiment: what it has come to, its numbers and drawings, its plan, its history, and the forms."""
    caller = site.access.caller(request)

    def drawn() -> Response:
        head = site.runtime.overview.cursor
        trial = _trial(site, caller, request)
        history = experiments.history(site.runtime, caller.scope, trial.plan)
        view = {
            "head": head,
            "one": tried.shown(experiments.viewed(trial)),
            "plan": trial.plan,
            "spelled": msgspec.json.format(msgspec.json.encode(trial.plan), indent=2).decode(),
            "stages": stages(trial, history),
            "history": history,
            **_offered(caller, trial),
        }
        return site.page(request, "experiment.html", view)

    return await _found(site, request, drawn)


async def report(site: Site, request: Request) -> Response:
    """The report of one experiment, as a file to keep."""
    caller = site.access.caller(request)
    kind = request.path_params["kind"]

    def written() -> Response:
        view = experiments.viewed(_trial(site, caller, request))
        text, media = (markdown(view), "text/markdown") if kind == "md" else (experiment_report.page(view), "text/html")
        named = f'attachment; filename="experiment-{view.name}.{kind}"'
        return Response(text, headers={"content-disposition": named, "cache-control": "no-store"}, media_type=media)

    if kind not in ("md", "html"):
        raise RequestError(f"there is no report as {kind[:20]!r}; ask for report.md or report.html", status=404)
    return await _found(site, request, written)


async def confirm(site: Site, request: Request) -> Response:
    """Say what a step would do, before it is taken."""
    caller = site.access.caller(request)
    do, variant = asked(request, "do"), asked(request, "variant")
    require(caller, _deed(do).role)

    def drawn() -> Response:
        trial = _trial(site, caller, request)
        seen = experiments.viewed(trial)
        view = {
            "do": do,
            "deed": DEEDS[do],
            "one": seen,
            "variant": variant,
            "stage": trial.stage + 2,
            "sure": seen.decision == "better" and seen.leader == variant,
        }
        return site.page(request, "step.html", view)

    return await _found(site, request, drawn)


async def take(site: Site, request: Request) -> Response:
    """Take a step; it holds from then on, in every worker."""
    caller = site.access.caller(request)
    form = await form_of(request)
    deed = _deed(form.get("do", ""))
    require(caller, deed.role)
    reason, name = form.get("reason", "").strip()[:1_000], request.path_params["name"]
    if not site.access.vouches(request, form.get("token", "")):
        return site.problem(request, 403, "This form is out of date", _STALE, kept=reason)
    try:
        await deed.take(site.runtime, caller, _arguments(form, name, reason))
    except InputError as exc:
        status = exc.status if isinstance(exc, RequestError) else 400
        return site.problem(request, status, "Nothing has changed", str(exc), kept=reason)
    return RedirectResponse(f"/experiments/{name}#history", 303)


def stages(trial: Trial, history: list[Switch]) -> list[Stage]:
    """The ramp, and when each stage began and by whom, as far as the history goes back."""
    began: dict[int, tuple[float, str]] = {0: (trial.at, ""), trial.stage: (trial.stage_at, "")}
    for switch in reversed(history):
        match switch.change:
            case Begin(plan=plan) if plan == trial.plan:
                began[0] = switch.at, switch.by
            case Advance(stage=stage) if stage <= trial.stage and switch.at >= trial.at:
                began[stage] = switch.at, switch.by
            case _:
                continue
    found = []
    for number, part in enumerate(trial.plan.ramp):
        at, by = began.get(number, (None, ""))
        found.append(Stage(number + 1, part, at, by, trial.state == "running" and number == trial.stage))
    return found


def _arguments(form: dict[str, str], name: str, reason: str) -> dict[str, Any]:
    """What the operation gets. RequestError for a stage that is no number."""
    arguments: dict[str, Any] = {"name": name, "reason": reason}
    match form["do"]:
        case "ship":
            return {**arguments, "variant": form.get("variant", ""), "force": form.get("force") == "1"}
        case "advance":
            stage = form.get("stage", "")
            if not (stage.isascii() and stage.isdecimal() and len(stage) < 4):
                raise RequestError("the form names no stage; open the page of the experiment again")
            return {**arguments, "stage": int(stage)}
        case _:
            return arguments


def _deed(do: str) -> Deed:
    if do not in DEEDS:
        raise RequestError(f"{do[:60]!r} is no step of an experiment; choose one of {', '.join(DEEDS)}")
    return DEEDS[do]


def _offered(caller: Caller, trial: Trial) -> dict[str, Any]:
    """What the forms offer; nothing for who may only look, or once it has ended."""
    may = {do: deed for do, deed in DEEDS.items() if RANK[caller.role] >= RANK[deed.role] and trial.state == "running"}
    shippable = [variant.name for variant in trial.plan.variants] if may.pop("ship", None) else []
    if trial.deciding:
        may.pop("advance", None)
    return {"steps": may, "shippable": shippable}


def _trial(site: Site, caller: Caller, request: Request) -> Trial:
    return experiments.find(site.runtime, caller.scope, request.path_params["name"], asked(request, "point"))


async def _found(site: Site, request: Request, drawn: Callable[[], Response]) -> Response:
    """What is drawn of an experiment, or that there is none."""
    try:
        return await asyncio.to_thread(drawn)
    except InputError as exc:
        return site.problem(request, 404, "No such experiment", str(exc))


def _known(runtime: Runtime, scope: Scope, state: str) -> list[str]:
    """The ids of all experiments in a state, the newest first."""
    with runtime.loop.lock:
        found = runtime.learner.trials.of(scope)
        return [trial.id for trial in found if state in ("", trial.state)]


def _leafed(ids: list[str], after: str) -> tuple[list[str], str]:
    """One page of them, and what the next one begins after; '' where there is none."""
    begin = ids.index(after) + 1 if after in ids else 0
    found = ids[begin : begin + PAGE]
    return found, found[-1] if begin + PAGE < len(ids) else ""
