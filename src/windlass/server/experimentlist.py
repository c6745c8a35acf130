"""What `windlass experiment` prints."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from windlass.errors import InputError
from windlass.improve.experiments import words
from windlass.improve.experiments.report import markdown
from windlass.improve.experiments.view import ComparisonView, ExperimentView, MetricView
from windlass.server import session, terminal
from windlass.server.terminal import add_line, clean, console, escape, listing, when
from windlass.settings import Settings

Answer = dict[str, Any]
WITHHELD: Final = 3
"""Exit code where nothing is said for a variant."""


def show(operation: str, answer: Answer, *, as_json: bool) -> int:
    """Print the answer of an operation; returns the exit code."""
    if as_json:
        terminal.print_json(answer)
    else:
        _SHOWN.get(operation, _show_step)(answer)
    if operation == "experiment_plan":
        return WITHHELD if answer["forecast"]["missing"] else 0
    return WITHHELD if operation == "experiment" and answer["experiment"]["withheld"] else 0


def watch(settings: Settings, asked: Answer, timeout_s: float | None, every_s: float, *, as_json: bool) -> int:
    """Wait until an experiment is decided or over, and show it; exit code 0 where a variant is better or shipped."""
    until = None if timeout_s is None else time.monotonic() + timeout_s
    steps = terminal.Steps(quiet=as_json)
    try:
        while True:
            answer = session.operate(settings, "experiment", asked)
            view = _view(answer)
            done, total = _progress(view, answer["plan"])
            steps.at(f"{view.name}, stage {view.stage + 1} of {len(view.ramp)}", min(done, total), total)
            if view.state != "running" or view.decision != "open" or view.withheld:
                break
            if until is not None and time.monotonic() >= until:
                terminal.note(f"{view.name} is not decided after {timeout_s:g} s")
                break
            time.sleep(every_s)
    finally:
        steps.close()
    show("experiment", answer, as_json=as_json)
    well = view.state == "shipped" or (view.decision == "better" and not view.withheld)
    return 0 if well else WITHHELD


def report(answer: Answer, out: Path | None, *, as_json: bool) -> int:
    """Write the report as Markdown or as a page, or print it; returns the exit code."""
    view = _view(answer)
    text = _written(view, out)
    if out is not None:
        try:
            out.write_text(text, encoding="utf-8")
        except OSError as exc:
            raise InputError(f"{out} cannot be written: {exc}") from exc
    if as_json:
        terminal.print_json(answer)
    elif out is None:
        terminal.say(text.rstrip())
    else:
        terminal.say(f"written: {out}")
    return WITHHELD if view.withheld else 0


def _written(view: ExperimentView, out: Path | None) -> str:
    if out is None or out.suffix == ".md":
        return markdown(view)
    if out.suffix != ".html":
        raise InputError(f"{out}: name a file that ends in .md or .html")
    from windlass.server.dashboard import experiment_report  # brings the drawings of the pages

    return experiment_report.page(view)


def _view(answer: Answer) -> ExperimentView:
    return msgspec.convert(answer["experiment"], ExperimentView)


def _progress(view: ExperimentView, plan: Answer) -> tuple[int, int]:
    """(what has been seen, what is wanted) of this stage; before the last one, of the candidate that has least."""
    if view.deciding:
        return view.units, view.size
    if not view.harm:
        return min(one.assigned for one in view.variants if one.name != view.baseline), plan["ramp_after"]
    return min(one.seen for one in view.harm), plan["ramp_after"] * (view.stage + 1)


def _show_list(answer: Answer) -> None:
    """One line an experiment."""
    table = listing("experiment", "point", "stands", "stage", "units", "since (UTC)", "says")
    for one in answer["experiments"]:
        stands = f"shipped {one['shipped']}" if one["shipped"] else one["state"]
        stage, units = f"{one['stage'] + 1} of {len(one['ramp'])}", f"{one['units']:,} of {one['size']:,}"
        add_line(table, one["name"], one["point"], stands, stage, units, when(one["started_at"]), one["sentence"])
    console().print(table if table.row_count else "No such experiment; `windlass experiment new` begins a plan.")


def _show_experiment(answer: Answer) -> None:
    """What it is, what it says, its variants, its metrics, and its steps."""
    out, view = console(), _view(answer)

    def line(text: str, style: str = "") -> None:
        out.print(f"[{style}]{escape(clean(text))}[/{style}]" if style else escape(clean(text)))

    line(f"{view.id} at {view.point}: {words.state(view)}, stage {words.stage(view)}", "bold")
    line(view.sentence)
    if view.hypothesis:
        line(f"hypothesis: {view.hypothesis}", "dim")
    table = listing("variant", "does", "share", "assigned", "with the metric", "cost")
    for one in view.variants:
        cost = words.NOTHING if one.cost_usd is None else words.usd(one.cost_usd)
        share, counts = words.percent(one.share), (f"{one.assigned:,}", f"{one.units:,}")
        add_line(table, one.name, one.spelled, share, *counts, cost)
    out.print(table)
    _show_metrics(view)
    for harm in view.harm:
        line(f"harm in {harm.metric} of {harm.variant}: {words.evidence(harm)}", "dim")
    for step in answer["history"]:
        reason = f": {step['reason']}" if step["reason"] else ""
        line(f"{when(step['at'])} {step['told']}, by {step['by']}{reason}", "dim")


def _show_metrics(view: ExperimentView) -> None:
    """One line a metric and candidate; none before the stage that decides."""
    table = listing("metric", "role", "variant", "effect", f"{words.percent(view.level)} interval", "values", "says")
    for metric in view.metrics:
        for one in metric.comparisons:
            add_line(table, metric.metric, metric.role, one.variant, *_figures(metric, one))
    if any(one.n for metric in view.metrics for one in metric.comparisons):
        console().print(table)


def _figures(metric: MetricView, one: ComparisonView) -> tuple[str, str, str, str]:
    effect, interval = words.effect(one.estimate, metric.unit), words.interval(one.low, one.high, metric.unit)
    return effect, interval, f"{one.n:,} against {one.baseline_n:,}", words.verdict(metric, one)


def _show_forecast(answer: Answer) -> None:
    """What the planned size finds, how long it takes, what others would, and what that costs."""
    from windlass.improve.experiments.planning import TrialForecast  # brings scipy

    found, plan = msgspec.convert(answer["forecast"], TrialForecast), answer["plan"]
    of = f"{plan['name']} at {plan['point']}: {found.metric} of {found.units:,} units"
    terminal.say(f"{of}, in {found.seen:,} calls over {_days(found.seen_days)}")
    if found.detectable is not None:
        effect = _by(found.detectable, found.unit)
        terminal.say(f"{found.size:,} units per variant find {effect} with a chance of {words.percent(found.power)}.")
    if found.days is not None and found.ramp_days is not None:
        terminal.say(f"That takes {_days(found.days)}, {_days(found.ramp_days)} of it before the stage that decides.")
    table = listing("to find", "units per variant", "takes")
    for one in found.sizes:
        add_line(table, _by(one.effect, found.unit), f"{one.size:,}", _days(one.days))
    if table.row_count:
        console().print(table)
    for cost in found.extra:
        if cost.usd:
            more = "more" if cost.usd > 0.0 else "less"
            terminal.say(f"{cost.variant} is expected to cost {words.usd(abs(cost.usd))} {more} than what is usual.")
    if found.missing:
        terminal.say(f"! {found.missing}")


def _by(effect: float, unit: str) -> str:
    """How far apart two variants are."""
    return f"{effect:.3g} {'points' if unit == 'points' else '%'}"


def _days(days: float | None) -> str:
    """How long, in the unit that fits.

    >>> _days(None), _days(0.01), _days(0.5), _days(12.34), _days(1234.5)
    ('–', '14 min', '12 h', '12.3 days', '1,234 days')
    """
    if days is None:
        return words.NOTHING
    if days < 1.0:
        return f"{days * 1_440:.0f} min" if days < 1 / 24 else f"{days * 24:.0f} h"
    return f"{days:,.0f} days" if days >= 100.0 else f"{days:.3g} days"


def _show_step(answer: Answer) -> None:
    """What was done, and how it stands."""
    terminal.show_rollout(answer)
    terminal.say(answer["experiment"]["sentence"])


_SHOWN: dict[str, Callable[[Answer], None]] = {
    "experiments": _show_list,
    "experiment": _show_experiment,
    "experiment_plan": _show_forecast,
}
