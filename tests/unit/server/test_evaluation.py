"""`windlass replay`: hostile logs, exit codes, what people and programs read, the page, and a ledger."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.golden.application import opened

from windlass.cli import main
from windlass.errors import InputError
from windlass.records import Call, Decision, Feedback, Outcome, Scope
from windlass.server import evaluation_log

MODELS = ["small", "large"]
SMALL = ["--policy", "fixed", "--options", '{"action": "small"}', "--share", "0"]
GOOD = {"actions": MODELS, "action": "small", "propensity": 0.5, "context": {"x": 1}, "quality": 1, "cost_usd": 0.001}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of this test's own, without the embedder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WINDLASS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WINDLASS_MEMORY__EMBEDDER", "off")
    return tmp_path / "home"


def rows(n: int, *, large: float = 0.5, rated: bool = True) -> list[dict[str, Any]]:
    """n logged choices; `small` costs 0.001 USD and is right in 60 %, `large` 0.01 USD and 90 %."""
    rng = np.random.default_rng(1)
    found = []
    for number in range(n):
        arm = int(rng.random() < large)
        one: dict[str, Any] = {
            "id": str(number),
            "at": 1_760_000_000 + number,
            "actions": MODELS,
            "action": MODELS[arm],
            "propensity": large if arm else 1.0 - large,
            "context": {"x": rng.random(), "v": [1.0, rng.random()]},
            "cost_usd": (0.001, 0.01)[arm],
        }
        found.append({**one, "quality": float(rng.random() < (0.6, 0.9)[arm])} if rated else one)
    return found


def written(path: Path, lines: list[Any]) -> str:
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return str(path)


def replayed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["replay", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_log_is_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = replayed(capsys, *SMALL, "--log", written(tmp_path / "log.jsonl", rows(1_000)))
    assert code == 0
    assert found["refused"] is False
    assert (found["policy"], found["decisions"], found["point"]) == ("fixed@1", 1_000, "model")
    assert found["cost_usd"]["value"]["value"] == pytest.approx(0.001)
    assert found["quality"]["value"]["value"] == pytest.approx(0.6, abs=0.1)
    assert {one["action"]: one["on_hull"] for one in found["fixed"]} == {"small": True, "large": True}
    saved = found["cost_usd"]["was"]["value"] - 0.001
    assert found["cost_usd"]["change"]["value"] == pytest.approx(-saved)
    assert re.search(
        r"you would have saved \S+ USD, 8\d\.\d % \(95 % interval .* at quality 0\.[56]", found["sentences"][0]
    )


def test_people_read_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", *SMALL, "--log", written(tmp_path / "log.jsonl", rows(1_000))]) == 0
    told = capsys.readouterr().out
    for words in (
        "1000 decisions at model",
        "you would have saved",
        "DRos",
        "SWITCH",
        "effective sample size",
        "on the hull",
    ):
        assert words in told


def test_what_costs_more_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--policy", "fixed", "--options", '{"action": "large"}', "--share", "0"]
    _, found = replayed(capsys, *options, "--log", written(tmp_path / "log.jsonl", rows(1_000)))
    assert re.search(r"you would have spent [\d.]+ USD more", found["sentences"][0])


def test_without_quality_only_cost_is_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = replayed(capsys, *SMALL, "--log", written(tmp_path / "log.jsonl", rows(1_000, rated=False)))
    assert code == 0
    assert found["quality"]["value"] is None
    assert any("only cost can be answered" in sentence for sentence in found["sentences"])


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (rows(100), "effective sample size"),
        (rows(2_000, large=1.0), "no overlap"),
        ([], "holds no decision"),
        ([{**one, "propensity": None} for one in rows(500)], "holds no decision"),
    ],
)
def test_a_log_that_cannot_tell_has_an_exit_code_of_its_own(
    lines: list[Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = replayed(capsys, *SMALL, "--log", written(tmp_path / "log.jsonl", lines))
    assert code == 3
    assert found["refused"] is True
    assert found["cost_usd"]["value"] is None
    assert any(words in sentence for sentence in found["sentences"])


HOSTILE: list[tuple[Any, str]] = [
    ({**GOOD, "propensity": float("nan")}, "the propensity is not in (0, 1]"),
    ({**GOOD, "propensity": 0}, "the propensity is not in (0, 1]"),
    ({**GOOD, "propensity": 1.5}, "the propensity is not in (0, 1]"),
    ({**GOOD, "propensity": True}, "the propensity is not in (0, 1]"),
    ({**GOOD, "propensity": "much"}, "the propensity is not in (0, 1]"),
    ({name: value for name, value in GOOD.items() if name != "propensity"}, "it has no propensity"),
    ({**GOOD, "action": "huge"}, "the action is none of its actions"),
    ({**GOOD, "action": ["small"]}, "the action is none of its actions"),
    ({**GOOD, "actions": "small"}, "it has no list of actions"),
    ({**GOOD, "actions": [1, 2]}, "it has no list of actions"),
    ({**GOOD, "actions": ["small", "small"]}, "one action was eligible"),
    ({**GOOD, "actions": ["small", "\ud800"]}, "an action's name is no text"),
    ({**GOOD, "context": {"\ud800": 1.0}}, "the name of a feature is no text"),
    ({**GOOD, "context": [1, 2]}, "the context is no mapping of names to numbers"),
    ({**GOOD, "context": {"x": "much"}}, "the context holds what is no number"),
    ({**GOOD, "context": {"x": float("inf")}}, "the context holds what is no number"),
    ('{"actions": ["small", "large"], "action": "sm\n', "the row cannot be read"),
    ("no json at all\n", "the row cannot be read"),
    ([], "the row cannot be read"),
]


@pytest.mark.parametrize(("row", "reason"), HOSTILE)
def test_a_row_that_cannot_be_used_is_counted_and_named(row: Any, reason: str, tmp_path: Path) -> None:
    found = evaluation_log.read(Path(written(tmp_path / "log.jsonl", [GOOD, row, GOOD])), "model")
    assert len(found.log.choices) == 2
    assert found.log.left_out == {reason: 1}
    assert found.bad[0]["line"] == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"quality": 1.2}, "quality is no number from 0 to 1"),
        ({"quality": float("nan")}, "quality is no number from 0 to 1"),
        ({"cost_usd": -1}, "cost_usd is no number from 0 to 1e+06"),
        ({"cost_nusd": "free"}, "cost_nusd is no number from 0 to 1e+15"),
    ],
)
def test_a_row_with_a_broken_result_stays(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """To leave it out would be to choose the rows by what came of them."""
    found = evaluation_log.read(Path(written(tmp_path / "log.jsonl", [{**GOOD, **change}])), "model")
    assert len(found.log.choices) == 1
    assert found.log.left_out == {reason: 1}


def test_more_actions_than_a_point_has_are_refused(tmp_path: Path) -> None:
    lines = [{**GOOD, "actions": ["small", f"model {number}"]} for number in range(1_001)]
    with pytest.raises(InputError, match="more than 1,000 different actions"):
        evaluation_log.read(Path(written(tmp_path / "log.jsonl", lines)), "model")


def test_of_rows_with_one_id_the_last_counts(tmp_path: Path) -> None:
    lines = [{**GOOD, "id": 1, "quality": 0.1}, {**GOOD, "id": 2}, {**GOOD, "id": 1, "quality": 0.9}, {**GOOD, "id": 2}]
    found = evaluation_log.read(Path(written(tmp_path / "log.jsonl", lines)), "model")
    assert [one.quality for one in found.log.choices] == [0.9, 1.0]
    assert found.log.left_out == {"a later row of that id took its place": 1, "the same row again": 1}


def test_packed_json_and_tables_are_read_too(tmp_path: Path) -> None:
    packed = tmp_path / "log.json.gz"
    packed.write_bytes(gzip.compress(json.dumps([GOOD, {**GOOD, "reward": 0.5, "cost_nusd": 7}]).encode()))
    table = tmp_path / "log.csv"
    table.write_text('actions,action,propensity,context,quality\n"[""small"", ""large""]",small,0.5,"{""x"": 2}",\n')
    one, other = evaluation_log.read(packed, "model").log.choices
    assert (one.cost_nusd, other.cost_nusd) == (1e6, 7.0)
    (row,) = evaluation_log.read(table, "model").log.choices
    assert (row.decision.actions, row.decision.context, row.quality) == (("small", "large"), {"x": 2.0}, None)


def test_a_file_that_ends_early_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = tmp_path / "log.jsonl.gz"
    cut.write_bytes(gzip.compress(json.dumps(GOOD).encode() * 2_000)[:-20])
    assert main(["replay", *SMALL, "--log", str(cut)]) == 3
    assert "could not be read to its end" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--policy", "nope"], "unknown policy 'nope'"),
        (["--policy", "fixed", "--options", "{"], "--options is no JSON object"),
        (["--policy", "fixed", "--options", "[1]"], "--options is no JSON object"),
        (["--policy", "fixed", "--options", '{"deed": 1}'], "has no option deed"),
        (["--policy", "fixed", "--share", "2"], "randomised share is 2.0"),
        (["--policy", "fixed", "--cap", "0"], "--cap is 0.0"),
        (["--policy", "fixed", "--cap", "nan"], "--cap is nan"),
        (["--policy", "fixed", "--since", "yesterday"], "yesterday"),
    ],
)
def test_wrong_usage_is_told_and_ends_with_2(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = replayed(capsys, *words, "--log", written(tmp_path / "log.jsonl", rows(10)))
    assert code == 2
    assert told in found["error"]["message"]


def test_a_missing_file_and_a_missing_ledger_are_told(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert replayed(capsys, *SMALL, "--log", "nowhere.jsonl")[0] == 2
    code, found = replayed(capsys, *SMALL)
    assert code == 2
    assert "there is no ledger" in found["error"]["message"]
    assert not home.exists(), "nothing was made"


def test_a_part_of_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = written(tmp_path / "log.jsonl", rows(1_000))
    _, found = replayed(capsys, *SMALL, "--log", log, "--since", "1760000500")
    assert found["decisions"] == 500
    assert found["log"]["left_out"] == {"outside --since and --until": 500}


class Page(HTMLParser):
    """The elements of a page, and the text in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_stands_alone_and_escapes_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = '<script>alert("x")</script>'
    lines = [
        {**one, "actions": [evil, "large"], "action": evil if one["action"] == "small" else "large"}
        for one in rows(900)
    ]
    log = written(tmp_path / "<b>.jsonl", [*lines, {**GOOD, "propensity": 0}])
    options = ["--options", json.dumps({"action": evil}), "--share", "0", "--log", log, "--html", "report.html"]
    assert main(["replay", "--policy", "fixed", *options]) == 0
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert "script" not in names
    assert not {"link", "img", "iframe", "a"} & names
    assert not any(name in attributes for _, attributes in page.tags for name in ("src", "href", "style", "onload"))
    assert evil in page.words
    drawings = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert [one["role"] for one in drawings] == ["img"]
    assert {"title", "desc", "details", "table", "caption", "th"} <= names
    for words in ("you would have saved", "static hull", "DRos", "the propensity is not in (0, 1]", "on the hull"):
        assert words in page.words
    assert "written: report.html" in capsys.readouterr().out


def test_the_page_of_a_refusal_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = written(tmp_path / "log.jsonl", rows(50))
    assert main(["replay", *SMALL, "--log", log, "--html", "report.html", "--json"]) == 3
    assert "effective sample size" in Page((tmp_path / "report.html").read_text()).words


async def _lived(home: Path, scope: Scope, calls: int) -> None:
    """A workspace's calls, in the ledger of the folder."""
    rng = np.random.default_rng(3)
    async with opened(home) as runtime:
        for number in range(calls):
            arm = int(rng.random() < 0.5)
            name = f"call_{scope.tenant}{number}"
            owner = {"at": 1_799_000_000.0 + number, "tenant": scope.tenant, "workspace": scope.workspace}
            outcome = {"model": MODELS[arm], "provider": "p", "status": 200, "latency_ms": 10.0, "first_byte_ms": 1.0}
            amounts = {"prompt_tokens": 1, "completion_tokens": 1, "cost_nusd": (10_000, 90_000)[arm]}
            runtime.ledger.post(
                Call(id=name, endpoint="chat", model="auto", **owner),
                Decision(
                    id=f"decision_{scope.tenant}{number}-model",
                    call=name,
                    point="model",
                    policy="linear_thompson@1",
                    actions=tuple(MODELS),
                    action=MODELS[arm],
                    propensity=0.5,
                    live=True,
                    context={"x": float(rng.random())},
                    featuriser="lexical@1",
                    **owner,
                ),
                Outcome(id=f"outcome_{scope.tenant}{number}", call=name, **outcome, **amounts, **owner),
            )
            rated: dict[str, Any] = {"kind": "rating", "source": "user", "value": float(arm)}
            runtime.ledger.post(Feedback(id=f"feedback_{scope.tenant}{number}", target=name, **rated, **owner))
        await runtime.caught_up()


def test_the_ledger_is_answered_for_one_workspace(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(_lived(home, Scope(), 600))
    asyncio.run(_lived(home, Scope("rival", "default"), 50))
    code, found = replayed(capsys, *SMALL)
    assert code == 0
    assert found["log"]["tenant"] == "default"
    assert found["decisions"] == 600
    assert found["cost_usd"]["value"]["value"] == pytest.approx(1e-5)
    assert found["quality"]["value"]["value"] == pytest.approx(0.0, abs=0.02)
    assert replayed(capsys, *SMALL, "--tenant", "rival")[1]["decisions"] == 50
    # What the point's policy has learned by itself: that `large` is liked. It stands in the newest snapshot.
    _, frozen = replayed(capsys, "--policy", "linear_thompson")
    assert "frozen as it has learned up to entry" in frozen["knows"]
    assert frozen["quality"]["value"]["value"] > 0.9
    _, again = replayed(capsys, "--policy", "linear_thompson", "--replay-learning")
    assert again["quality"]["value"]["value"] > 0.8
    assert "learning from each" in again["knows"]
    _, other = replayed(capsys, "--policy", "linear_thompson", "--options", '{"prior_mean": 0.1}')
    assert "learned nothing" in other["knows"]
    code, wrong = replayed(capsys, *SMALL, "--point", "nope")
    assert (code, "there is no decision point" in wrong["error"]["message"]) == (2, True)
