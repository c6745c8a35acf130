"""What `windlass replay` found, as plain data for programs, and as sentences and tables for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, TypeAlias

from rich.markup import escape
from rich.table import Table

from windlass.policies.evaluation import Evaluation, Judgement, Placed
from windlass.server.terminal import add_line, clean, console, listing, note, when
from windlass.stats import hull
from windlass.stats.dollars import NUSD
from windlass.stats.offpolicy import Estimate

QUANTITIES: Final = ("cost_usd", "quality")
Words: TypeAlias = Callable[[float], str]
"""How a number of one quantity is written."""


def report(head: Mapping[str, Any], found: Evaluation) -> dict[str, Any]:
    """The answer of the command. refused: whether something stays unanswered that the log holds figures of."""
    answers = {"cost_usd": _answered(found.cost, 1 / NUSD), "quality": _answered(found.quality, 1.0)}
    asked = [answers["cost_usd"]] + ([answers["quality"]] if found.quality.known or not found.cost.known else [])
    fixed = [_fixed(one) for one in found.fixed]
    known = [one for one in fixed if one["cost_usd"] and one["quality"]]
    points = [(one["cost_usd"]["value"], one["quality"]["value"]) for one in known]
    on_hull = {known[place]["action"] for place in hull.upper(points)}
    answer = {
        **head,
        "refused": any(one["refused"] for one in asked),
        "decisions": found.decisions,
        **answers,
        "fixed": [{**one, "on_hull": one["action"] in on_hull} for one in fixed],
        "hull_quality": _beneath(points, answers),
    }
    return {**answer, "sentences": sentences(answer)}


def sentences(answer: Mapping[str, Any]) -> list[str]:
    """What it comes to, in words."""
    cost, rated, policy = answer["cost_usd"], answer["quality"], answer["policy"]
    told: list[str] = []
    if not cost["refused"]:
        told.append(_saved(answer, cost, rated))
    if not rated["refused"]:
        value, change = rated["value"], rated["change"]
        sure = "" if rated["sure"] is None else f"; certain, whatever the weights: {spread(rated['sure'], quality)}"
        told.append(
            f"Quality of {policy}: {quality(value['value'])} (95 % interval {spread(value, quality)}{sure}); "
            f"logged: {quality(rated['was']['value'])}; "
            f"the difference: {quality(change['value'])} ({spread(change, quality)})."
        )
        if answer["hull_quality"] is not None:
            told.append(
                f"The best fixed mix of the logged actions reaches {quality(answer['hull_quality'])} at that cost."
            )
    for name, one in (("Cost", cost), ("Quality", rated)):
        told += [f"{name} is not answered: {why}." for why in one["refused"]]
        if one["clipped"]:
            told.append(
                f"{name}: the cap took {quality(one['clipped'])} of a mean weight of 1 away; the interval holds it."
            )
        if not one["refused"] and one["uncovered"]:
            share = f"{100 * one['uncovered']:.2g} %"
            told.append(f"{name}: of {share} of the policy's choices the log says nothing; the interval holds that.")
    return told


def show(answer: Mapping[str, Any]) -> None:
    """Sentences first, then each estimator, then what single actions would have been."""
    out, log = console(), answer["log"]
    where = log.get("file") or f"{log['tenant']}/{log['workspace']}"
    period = f", {when(log['from'])} to {when(log['to'])}" if log["from"] else ""
    out.print(escape(clean(f"{answer['decisions']} decisions at {answer['point']} ({where}{period})")))
    for reason, count in log["left_out"].items():
        out.print(escape(clean(f"counted: {count} ({reason})")))
    share = f"{100 * answer['share']:g} % at random"
    out.print(escape(clean(f"policy {answer['policy']}, {share}: {answer['knows']}\n")))
    for sentence in answer["sentences"]:
        out.print(escape(clean(sentence)))
    for name, words in zip(QUANTITIES, (usd, quality), strict=True):
        if not answer[name]["refused"]:
            out.print()
            out.print(_estimators(name, answer[name], words))
    if answer["fixed"]:
        out.print()
        out.print(_actions(answer))
    for one in log.get("bad", ()):
        note(f"line {one['line']}: {one['reason']}: {one['why']}")
    if log.get("unfinished"):
        note(f"{log['file']} could not be read to its end")


def _answered(answer: Judgement, scale: float) -> dict[str, Any]:
    """One quantity as plain data, in dollars or in shares of 1."""
    return {
        "refused": list(answer.refused),
        "known": answer.known,
        "effective_sample_size": answer.overlap.size,
        "mean_weight": answer.overlap.mean_weight,
        "largest_weight": answer.overlap.largest,
        "uncovered": answer.uncovered,
        "clipped": answer.clipped,
        "was": _estimate(answer.was, scale),
        "value": _estimate(answer.value, scale),
        "change": _estimate(answer.change, scale),
        "sure": None if answer.sure is None else {"low": answer.sure[0], "high": answer.sure[1]},
        "estimators": {name: _estimate(one, scale) for name, one in answer.values.items()},
    }


def _estimate(estimate: Estimate | None, scale: float) -> dict[str, Any] | None:
    if estimate is None:
        return None
    told: dict[str, Any] = {
        "value": scale * estimate.value,
        "low": scale * estimate.low,
        "high": scale * estimate.high,
    }
    if estimate.setting is not None:
        unlimited = estimate.setting == float("inf")
        told |= {"bias": scale * estimate.bias, "setting": None if unlimited else estimate.setting}
    return told


def _fixed(one: Placed) -> dict[str, Any]:
    cost, rated = _estimate(one.cost, 1 / NUSD), _estimate(one.quality, 1.0)
    return {"action": one.action, "chosen": one.chosen, "cost_usd": cost, "quality": rated}


def _beneath(points: list[hull.Point], answers: Mapping[str, Any]) -> float | None:
    """The quality of the best fixed mix at the policy's cost."""
    cost = answers["cost_usd"]["value"]
    return None if cost is None or answers["quality"]["value"] is None else hull.quality_at(points, cost["value"])


def _saved(answer: Mapping[str, Any], cost: Mapping[str, Any], rated: Mapping[str, Any]) -> str:
    """`you would have saved X (95 % interval A to B) at Y quality`."""
    change, n = cost["change"], answer["decisions"]
    saved, low, high = -n * change["value"], -n * change["high"], -n * change["low"]
    part = f", {100 * abs(change['value']) / cost['was']['value']:.1f} %" if cost["was"]["value"] > 0.0 else ""
    what = f"saved {usd(saved)}{part}" if saved >= 0.0 else f"spent {usd(-saved)} more{part}"
    ends = (low, high) if saved >= 0.0 else (-high, -low)
    at = "" if rated["refused"] else f" at quality {quality(rated['value']['value'])}"
    each = f"{usd(cost['value']['value'])} a call ({spread(cost['value'], usd)}) for {usd(cost['was']['value'])}"
    return (
        f"With {answer['policy']} you would have {what} (95 % interval {usd(ends[0])} to {usd(ends[1])}){at} "
        f"over these {n} decisions: {each}."
    )


def _estimators(name: str, answer: Mapping[str, Any], words: Words) -> Table:
    table = listing(name.replace("_", " "), "value", "95 % interval", "")
    for estimator, one in answer["estimators"].items():
        setting = "" if one.get("setting") is None else f"at {one['setting']:.3g}, bias {words(one['bias'])}"
        add_line(table, estimator, words(one["value"]), spread(one, words), setting)
    size = f"effective sample size {answer['effective_sample_size']:.0f} of {answer['known']}"
    weights = f"mean weight {answer['mean_weight']:.3f}, largest {answer['largest_weight']:.1f}"
    add_line(table, size, "", weights, "")
    return table


def _actions(answer: Mapping[str, Any]) -> Table:
    table = listing("always", "chosen", "cost", "95 % interval", "quality", "95 % interval", "")
    for one in answer["fixed"]:
        cells: list[str] = []
        for name, words in zip(QUANTITIES, (usd, quality), strict=True):
            cells += ["not known", ""] if one[name] is None else [words(one[name]["value"]), spread(one[name], words)]
        add_line(table, one["action"], str(one["chosen"]), *cells, "on the hull" if one["on_hull"] else "")
    return table


def usd(amount: float) -> str:
    """Dollars to four figures, never with an exponent.

    >>> usd(0.000012344), usd(-3.0), usd(1234567.0)
    ('0.00001234 USD', '-3 USD', '1235000 USD')
    """
    # A zero keeps no sign.
    return f"{Decimal(f'{amount + 0.0:.4g}'):f} USD"


def quality(value: float) -> str:
    """A quality to four places."""
    return f"{value:.4f}"


def spread(one: Mapping[str, Any], words: Words) -> str:
    """`low to high`."""
    return f"{words(one['low'])} to {words(one['high'])}"
