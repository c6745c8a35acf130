"""The commands' flows: in this process, or handed to the server that runs on the same state folder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from windlass.content.analysis import WELCOME
from windlass.content.ingest import VECTORS, files_of
from windlass.errors import ErrorCategory, FolderBusy, InputError, LedgerError, SettingsError, WorkflowError
from windlass.gateway.access.admission import Caller
from windlass.records import Scope
from windlass.runtime import Runtime
from windlass.server import doctor, peer, terminal
from windlass.server.exposure import guard
from windlass.server.serve import in_loop, serve
from windlass.settings import Settings

if TYPE_CHECKING:
    from windlass.server.operations import Operation

OWNER = Caller(Scope(), "admin", "")
POLL_S = 0.1
MOST_LISTED = 1_000
# A file up to this size is checked page by page before a server starts on it; `doctor` checks any size.
CHECKED_BYTES = 128 * 1024 * 1024
SAMPLES, SAMPLE_QUESTIONS = "samples", "sample_questions.txt"
T = TypeVar("T")
Operate = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


def _operation(name: str) -> Operation:
    """What can be asked by that name; a server is not asked by its own process, and does without."""
    from windlass.server.operations import OPERATIONS

    return OPERATIONS[name]


def operate(settings: Settings, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Do one operation, wherever it is done best."""
    running = peer.find(settings.home)
    if running is not None:
        return running.operate(operation, arguments)

    async def here() -> dict[str, Any]:
        async with Runtime(settings) as runtime:
            return await _operation(operation)(runtime, OWNER, arguments)

    return in_loop(here())


def examine(settings: Settings, refused: str = "", *, replay: bool) -> dict[str, Any]:
    """What `doctor` tells. The files come first: a ledger that cannot be opened cannot be asked what ails it.

    refused: why `settings` are not all that was set. The ledger is opened by no others than those that are meant, or
    the policies would be folded as nobody has set them; a server goes by its own.
    """
    storage, running = doctor.storage(settings), peer.find(settings.home)
    if (storage or refused) and running is None:
        report = doctor.unopened(settings, "")
    else:
        try:
            report = operate(settings, "doctor", {"replay": replay})
        except SettingsError as exc:  # a plugin that is missing, a policy that cannot be
            report = doctor.unopened(settings, "")
            refused = str(exc)
        except (LedgerError, WorkflowError) as exc:
            report = doctor.unopened(settings, str(exc))
    mistakes = [doctor.unreadable(refused)] if refused else []
    if mistakes and replay and "replay" not in report:
        mistakes.append("nothing was replayed: the ledger was not opened; mend the settings first")
    report["findings"] = mistakes + storage + doctor.exposed(settings) + report["findings"]
    return report


def reload(settings: Settings, refused: str = "", *, as_json: bool) -> int:
    """Let the folder's server read its settings again. InputError where none runs, or it refuses them.

    refused: why this process cannot read all of them. What the server makes of its own is for it to say, and to audit.
    """
    running = peer.find(settings.home)
    if running is None:
        if refused:
            raise SettingsError(refused)
        raise InputError(f"no server runs on {settings.home}; `windlass up` reads the settings when it starts")
    return terminal.show("reload", running.operate("reload", {}), as_json=as_json)


def ingest(settings: Settings, paths: Sequence[str], *, wait: bool, as_json: bool) -> int:
    """Take files in and show how far it is; exit code 1 if an item could not be read."""
    named = [str(file.resolve()) for file in files_of([Path(path) for path in paths])]
    running = peer.find(settings.home)
    if running is not None:
        found = running

        async def there(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
            return await asyncio.to_thread(found.operate, name, arguments)

        report = in_loop(_take_in(there, named, wait=wait, quiet=as_json))
    else:
        report = in_loop(_ingest_here(settings, named, wait=wait, quiet=as_json))
    if as_json:
        terminal.print_json(report)
    else:
        _tell(report)
    return 1 if report["failed"] else 0


def up(
    settings: Settings,
    *,
    dashboard: bool,
    as_json: bool,
    workers: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> int:
    """Serve until interrupted; with `workers`, in so many processes, each of which loads `overrides` again.

    InputError for fewer than one worker.
    """
    if workers is not None and workers < 1:
        raise InputError(f"--workers is {workers}; give at least 1, or leave it out for one process")
    pages = dashboard and settings.server.dashboard

    async def serving() -> int:
        async with Runtime(settings, workflows=True) as runtime:
            await _serve(runtime, dashboard, as_json)
        return 0

    async def supervising() -> int:
        from windlass.server.workers import supervise

        told = partial(_ready, dashboard=pages, as_json=as_json)
        await supervise(settings, workers or 1, overrides=dict(overrides or {}), dashboard=pages, ready=told)
        terminal.note("stopped")
        return 0

    return _alone(settings, serving() if workers is None else supervising())


def run(
    settings: Settings,
    *,
    paths: Sequence[str],
    questions: Sequence[str],
    stay: bool,
    dashboard: bool,
    as_json: bool,
) -> int:
    """The main job in one go: ingest, answer, say what was decided, and serve unless `stay` is False."""

    async def doing() -> int:
        async with Runtime(settings, workflows=True) as runtime:
            if stay:
                guard(settings, open_to_all=runtime.gateway.admission.open)

            async def here(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
                return await _operation(name)(runtime, OWNER, arguments)

            code = await _main_job(runtime, here, paths, questions, as_json)
            if stay:
                await _serve(runtime, dashboard, as_json)
                return 0
            return code

    return _alone(settings, doing())


async def _main_job(
    runtime: Runtime, operate_here: Operate, paths: Sequence[str], questions: Sequence[str], as_json: bool
) -> int:
    started = time.perf_counter()
    with as_file(files("windlass.content") / SAMPLES) as samples:
        named = [str(file.resolve()) for file in files_of([Path(path) for path in paths] or [samples])]
        report = await _take_in(operate_here, named, wait=True, quiet=as_json)
    asked = tuple(questions) or _own_questions(runtime, report["items"], packaged=not paths)
    answers = [await operate_here("ask", {"question": question}) for question in asked]
    await runtime.caught_up()
    made = _of(answers, await operate_here("decisions", {"limit": MOST_LISTED}))
    took_s = round(time.perf_counter() - started, 3)
    summary = {"ingest": report, "answers": answers, "decisions": made, "took_s": took_s}
    if as_json:
        terminal.print_json(summary)
    else:
        _tell_all(summary)
    unanswered = [answer for answer in answers if not answer["answered"]]
    return 1 if unanswered or report["failed"] else 0


def _of(answers: Sequence[dict[str, Any]], newest: dict[str, Any]) -> list[dict[str, Any]]:
    """The decisions that led to `answers`: an earlier run, or shadow policies, must not decide how many those are."""
    own = {answer[name] for answer in answers for name in ("id", "call") if answer[name]}
    return [decision for decision in newest["decisions"] if decision["call"] in own]


def _tell_all(summary: dict[str, Any]) -> None:
    """The main job's outcome for people: what was taken in, the answers, the decisions, the bill."""
    _tell(summary["ingest"])
    for answer in summary["answers"]:
        terminal.show_ask(answer)
    terminal.console().print("\nDecided on the way:")
    terminal.show_decisions(summary)
    cost = terminal.usd(sum(answer["cost_nusd"] for answer in summary["answers"]))
    terminal.console().print(f"\n{len(summary['answers'])} answers, cost {cost}, {summary['took_s']:.1f} s in all.")


def _own_questions(runtime: Runtime, items: Sequence[str], *, packaged: bool) -> tuple[str, ...]:
    """Two questions: the package's own for its samples, else made from the corpus' section headings."""
    if packaged:
        return tuple((files("windlass.content") / SAMPLE_QUESTIONS).read_text().splitlines())[:2]
    headings = [title for title in runtime.contents.headings(OWNER.scope, items) if not WELCOME.search(title)]
    if not headings:
        raise InputError("the corpus has no section headings to make questions from; ask your own with -q")
    picked = (headings[len(headings) // 3], headings[2 * len(headings) // 3])
    return tuple(f"What is said about {heading}?" for heading in dict.fromkeys(picked))


async def _ingest_here(settings: Settings, named: list[str], *, wait: bool, quiet: bool) -> dict[str, Any]:
    async with Runtime(settings, workflows=True, serve=(VECTORS,) if wait else ()) as runtime:

        async def here(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
            return await _operation(name)(runtime, OWNER, arguments)

        return await _take_in(here, named, wait=wait, quiet=quiet)


async def _take_in(operate_on: Operate, named: list[str], *, wait: bool, quiet: bool) -> dict[str, Any]:
    """Start the run and follow it to its end; returns what `windlass ingest --json` prints."""
    started = time.perf_counter()
    batch = await operate_on("ingest", {"paths": named})
    items = list(dict.fromkeys(batch["items"]))
    steps, text_s, ended = terminal.Steps(quiet=quiet), 0.0, False
    try:
        while not ended:
            state = await operate_on("progress", {"run": batch["run"]})
            if "broken" in (state["status"], state["vectors_status"]):
                raise WorkflowError(f"run {batch['run']} broke; ingest again, nothing is lost or doubled")
            if state["text"] >= len(items) and not text_s:
                text_s = time.perf_counter() - started
            steps.at("text index", state["text"], len(items))
            steps.at("chapters and key quotes", state["analysis"], len(items) - len(state["failed"]))
            if wait and text_s:
                steps.at("vectors", state["vectors"], state["chunks"])
            ended = state["status"] == "done" and not (wait and state["vectors_status"] in ("waiting", "running"))
            if not ended:
                await asyncio.sleep(POLL_S)
    finally:
        steps.close()
    names = dict(zip(batch["items"], batch["names"], strict=True))
    failed = [{**failure, "name": names.get(failure["item"], failure["item"])} for failure in state["failed"]]
    took_s = time.perf_counter() - started
    return {
        "run": batch["run"],
        "items": items,
        "failed": failed,
        "items_in_memory": state["items"],
        "chunks": state["chunks"],
        "vectors": state["vectors"],
        "text_s": round(text_s, 3),
        "took_s": round(took_s, 3),
    }


def _tell(report: dict[str, Any]) -> None:
    good = len(report["items"]) - len(report["failed"])
    vectors = f"{report['vectors']} vectors" if report["vectors"] else "no vectors"
    terminal.console().print(
        f"{good} taken in; memory holds {report['items_in_memory']} items ({report['chunks']} passages, {vectors}); "
        f"text index {report['text_s']:.1f} s, all {report['took_s']:.1f} s."
    )
    for failure in report["failed"]:
        terminal.note(f"not taken in: {failure['name']}: {failure['message'].removeprefix(failure['name'] + ': ')}")


async def _serve(runtime: Runtime, dashboard: bool, as_json: bool) -> None:
    """Serve until a signal, which is the ordinary end of a server."""
    pages = dashboard and runtime.settings.server.dashboard
    await serve(runtime, dashboard=pages, ready=partial(_ready, dashboard=pages, as_json=as_json))
    terminal.note("stopped")


def _ready(url: str, *, dashboard: bool, as_json: bool) -> None:
    if as_json:
        terminal.print_json({"url": url, "openai_base_url": f"{url}/v1", "dashboard": dashboard})
    else:
        pages = f"dashboard {url}/  " if dashboard else ""
        terminal.say(f"\nWindlass is up: {pages}OpenAI base_url {url}/v1  (Ctrl-C stops it)")


def _alone(settings: Settings, work: Coroutine[Any, Any, int]) -> int:
    """Run `work` on a folder that no server runs on."""
    running = peer.find(settings.home)
    if running is not None:
        work.close()
        raise FolderBusy(
            f"a server already runs on {settings.home}: {running.url}; stop it or use another WINDLASS_HOME"
        )
    for damaged in doctor.damages(settings, largest_bytes=CHECKED_BYTES):
        work.close()
        raise LedgerError(damaged, category=ErrorCategory.DATABASE_CORRUPT)
    return in_loop(work)
