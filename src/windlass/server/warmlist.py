"""What `windlass warm` prints."""

from __future__ import annotations

from typing import Any

from windlass.server import terminal
from windlass.server.clusterlist import measured
from windlass.server.held import cost_words
from windlass.server.terminal import add_line, console, listing

Answer = dict[str, Any]
NUSD = 1e9


def show(what: str, answer: Answer, *, as_json: bool) -> int:
    """Print the plan or how far it is; returns the exit code."""
    if as_json:
        terminal.print_json(answer)
        return 0
    (_show_plan if what == "plan" else _show_status)(answer)
    for finding in answer["findings"]:
        terminal.say(f"! {finding}")
    return 0


def _show_plan(answer: Answer) -> None:
    plan = answer["plan"]
    if answer["unpriced"]:
        terminal.say(f"No plan: nobody knows the price of {', '.join(answer['unpriced'])}; set prices in the settings.")
    elif plan is None:
        terminal.say("No plan: no call has left the choice of its model open yet; send some with the model `auto`.")
    else:
        _show_costs(plan)
    if not answer["graders"]:
        terminal.say("There are no graders; without one nobody says how good the answers are. Add [graders.<name>].")


def _show_costs(plan: Answer) -> None:
    interval = f"{cost(plan['usd_low'])} to {cost(plan['usd_high'])}"
    terminal.say(f"{plan['prompts']} prompts, each to all other models: {cost(plan['usd'])} (95 %: {interval}),")
    terminal.say(f"by the newest {plan['calls_seen']} calls: {cost(plan['usd_a_prompt'])} a prompt.")
    if plan["prompts_affordable"] < plan["prompts"]:
        terminal.say(f"The budget of the settings is expected to end it after {plan['prompts_affordable']} prompts.")
    table = listing("model", "answers", "cost", "rewards so far", "quality now")
    for one in plan["models"]:
        cells = (str(one["answers"]), cost(one["usd"]), str(one["rewards_so_far"]))
        add_line(table, one["model"], *cells, measured(one["quality"], one["sd"]))
    console().print(table)


def _show_status(answer: Answer) -> None:
    told = answer["progress"]
    if told["state"] == "off":
        terminal.say("Off: routing.warm_start_prompts is 0. `windlass warm plan` tells what it would cost.")
        return
    terminal.say(f"{told['state']}: {told['prompts']} of {told['prompts_wanted']} prompts, {told['answers']} answers")
    if told["budget_usd"] is not None:
        terminal.say(f"{cost(told['spent_usd'])} of {cost(told['budget_usd'])} are spent or held, of all tenants.")
    if told["unknown"]:
        terminal.say(f"Of {told['unknown']} answers nothing is known yet; what they may cost is held.")
    reasons = ", ".join(f"{why} {count}" for why, count in told["passed_over"].items())
    if reasons:
        terminal.say(f"Passed over since the server began: {reasons}")


def cost(usd: float) -> str:
    """Dollars in words that fit the amount."""
    return cost_words(usd * NUSD)
