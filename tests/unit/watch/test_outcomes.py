"""The fold over outcomes: who failed, since when, what recovered; and that each outcome counts once, whoever folds."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.golden.application import tables

from windlass.ledger.db import Database
from windlass.ledger.sql import SqlLedger
from windlass.records import Call, Outcome, Scope
from windlass.watch.outcomes import fold
from windlass.watch.outcomes.fold import QUIET_S, whose
from windlass.watch.outcomes.store import Episode, OutcomeTables, episodes, key_hours, provider_hours

A = Scope("a", "default")
AT = 1_800_000_000.0
FAR, NEAR = ("far", "large"), ("near", "small")


class Bench:
    """One database, its ledger, and workers that fold it."""

    def __init__(self, folder: Path):
        (folder / "ledger.db").write_bytes(tables())
        self.path = folder / "ledger.db"
        self.dbs = [Database(self.path)]
        self.ledger = SqlLedger(self.dbs[0])
        self.count = 0

    def worker(self) -> OutcomeTables:
        self.dbs.append(Database(self.path))
        return OutcomeTables(self.dbs[-1])

    def add(self, *outcomes: Outcome) -> None:
        self.ledger.append_now(*outcomes)

    def rows(self) -> list[list[Any]]:
        """All that the tables hold."""
        with self.dbs[0].read() as connection:
            every = (provider_hours, key_hours, episodes)
            return [sorted(map(tuple, connection.execute(sa.select(table)))) for table in every]

    def close(self) -> None:
        self.ledger.close()
        for db in self.dbs:
            db.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def tried(who: tuple[str, str], category: str = "", *, sent: bool = True, at_ms: float = 0.0) -> dict[str, Any]:
    """One attempt as the ledger keeps it."""
    return {
        "provider": who[0], "model": who[1], "category": category, "sent": sent, "started_ms": at_ms, "took_ms": 20.0,
        "status": 0, "hedge": False, "bill": "none",
    }  # fmt: skip


def ended(
    number: int,
    who: tuple[str, str] = FAR,
    error: str = "",
    attempts: Sequence[dict[str, Any]] = (),
    at: float | None = None,
    **changes: Any,
) -> Outcome:
    """One outcome, a second after the one before it."""
    extra = changes.pop("extra", {"attempts": list(attempts)} if attempts else {})
    fields: dict[str, Any] = {
        "id": f"outcome_{number}", "call": f"call_{number}", "at": AT + number if at is None else at, "tenant": "a",
        "provider": who[0], "model": who[1], "status": 200, "latency_ms": 500.0, "first_byte_ms": 80.0,
        "prompt_tokens": 1, "completion_tokens": 1, "cost_nusd": 10, "error": error, "extra": extra,
    }  # fmt: skip
    return Outcome(**{**fields, **changes})


def folded(bench: Bench, *outcomes: Outcome) -> OutcomeTables:
    bench.add(*outcomes)
    worker = bench.worker()
    worker.catch_up(bench.ledger.head())
    return worker


def only(found: Sequence[Episode]) -> Episode:
    assert len(found) == 1, found
    return found[0]


def test_a_failure_goes_on_until_the_model_answers(bench: Bench) -> None:
    failing = folded(bench, ended(1, error="rate_limited"), ended(2, error="rate_limited"), ended(3, NEAR))
    one = only(failing.going_on(A))
    assert (one.provider, one.model, one.error) == (*FAR, "rate_limited")
    assert (one.since, one.last, one.failed, one.lost) == (AT + 1, AT + 2, 2, 2)
    assert one.recovered_at is None
    assert failing.over(A) == []
    mended = folded(bench, ended(4))
    one = only(mended.over(A))
    assert (one.recovered_at, one.recovered_by) == (AT + 4, "call")
    assert mended.going_on(A) == []


@pytest.mark.parametrize(
    ("attempts", "answers", "became"),
    [
        ([tried(FAR, "connection_reset"), tried(FAR, at_ms=50)], FAR, "retried"),
        ([tried(FAR, "connection_reset"), tried(NEAR, at_ms=50)], NEAR, "failed_over"),
    ],
)
def test_what_became_of_the_calls_is_told_apart(
    bench: Bench, attempts: list[dict[str, Any]], answers: tuple[str, str], became: str
) -> None:
    worker = folded(bench, ended(1, answers, attempts=attempts))
    one = only([*worker.going_on(A), *worker.over(A)])
    assert {name: getattr(one, name) for name in ("retried", "failed_over", "lost") if getattr(one, name)} == {
        became: 1
    }
    assert one.recovered_by == ("retry" if became == "retried" else "")


@pytest.mark.parametrize(
    ("answers", "error", "calls"),
    [
        (FAR, "", {"retried": 1}),
        (NEAR, "", {"failed_over": 1}),
        (FAR, "rate_limited", {"lost": 1}),
        (FAR, "stream_cut", {"lost": 1}),
        (NEAR, "client_gone", {}),
    ],
)
def test_a_call_of_several_attempts_is_one_call(
    bench: Bench, answers: tuple[str, str], error: str, calls: dict[str, int]
) -> None:
    attempts = [tried(FAR, "rate_limited", at_ms=10.0 * number) for number in range(3)]
    answered = [] if error == "rate_limited" else [tried(answers, at_ms=50)]
    worker = folded(bench, ended(1, answers, error=error, attempts=[*attempts, *answered]))
    (one,) = (one for one in (*worker.going_on(A), *worker.over(A)) if one.error == "rate_limited")
    assert one.failed == 3
    assert {name: getattr(one, name) for name in ("retried", "failed_over", "lost") if getattr(one, name)} == calls


def test_what_was_left_alone_is_recovered_by_a_probe(bench: Bench) -> None:
    skipped = [tried(FAR, "upstream_server_error", sent=False), tried(NEAR, at_ms=1)]
    worker = folded(
        bench,
        ended(1, error="upstream_server_error"),
        *(ended(number, NEAR, attempts=skipped) for number in (2, 3)),
        ended(9, FAR),
    )
    one = only(worker.over(A))
    assert (one.failed, one.skipped, one.lost, one.failed_over) == (1, 2, 1, 0)
    assert (one.recovered_by, one.recovered_at, one.last) == ("probe", AT + 9, AT + 3)
    hours = {(hour.provider, hour.model): hour for hour in worker.hours(A)}
    assert (hours[FAR].answered, hours[FAR].failed, hours[FAR].skipped) == (1, 1, 2)
    assert hours[NEAR].answered == 2


def test_a_provider_that_flaps_makes_one_episode_and_a_later_failure_another(bench: Bench) -> None:
    flaps = [ended(number, error="stream_idle" if number % 2 else "") for number in range(1, 9)]
    later = ended(20, error="stream_idle", at=AT + 7 + QUIET_S + 0.5)
    worker = folded(bench, *flaps, later)
    assert only(worker.over(A)).failed == 4
    assert only(worker.going_on(A)).since == later.at


def test_a_stream_that_broke_off_after_a_good_opening_is_a_failure_of_who_sent_it(bench: Bench) -> None:
    attempts = [tried(NEAR, "connect_refused"), tried(FAR, at_ms=30)]
    worker = folded(bench, ended(1, FAR, error="stream_cut", attempts=attempts))
    assert {(one.model, one.error, one.lost) for one in worker.going_on(A)} == {
        ("small", "connect_refused", 1),
        ("large", "stream_cut", 1),
    }


@pytest.mark.parametrize("error", ["client_gone", "cancelled", "shutdown"])
def test_a_client_that_leaves_is_nobodys_failure_and_no_answer(bench: Bench, error: str) -> None:
    worker = folded(bench, ended(1, error="rate_limited"), ended(2, error=error))
    assert only(worker.going_on(A)).failed == 1
    assert sum(hour.answered for hour in worker.hours(A)) == 0


def test_times_count_from_when_the_model_was_asked(bench: Bench) -> None:
    attempts = [tried(NEAR, "first_byte_timeout"), tried(FAR, at_ms=400.0)]
    worker = folded(bench, ended(1, FAR, attempts=attempts), ended(2, NEAR, latency_ms=300.0, first_byte_ms=30.0))
    hours = {hour.model: hour for hour in worker.hours(A)}
    assert hours["large"].latency.quantile(0.5) == pytest.approx(100.0, rel=0.02)
    assert hours["large"].first_byte.quantile(0.5) == pytest.approx(20.0, rel=0.02)
    assert hours["small"].first_byte.quantile(0.5) == pytest.approx(30.0, rel=0.02)


@pytest.mark.parametrize(
    "extra",
    [
        {"attempts": "none"}, {"attempts": [{"provider": 5}]}, {"attempts": [[]]}, {"key": ["x"]}, {"attempts": None},
        {"attempts": [{"category": "new_cause", "provider": "far", "model": "large"}], "key": "k" * 5_000},
    ],
)  # fmt: skip
def test_what_others_wrote_into_extra_stops_nothing(bench: Bench, extra: dict[str, Any]) -> None:
    worker = folded(bench, ended(1, extra=extra), ended(2, provider="p" * 5_000, model="m" * 5_000), ended(3, NEAR))
    assert worker.cursor == bench.ledger.head()
    assert sum(hour.answered for hour in worker.hours(A)) == 3
    assert max(len(hour.model) for hour in worker.hours(A)) == fold.NAME_CHARS


def test_keys_are_counted_where_the_outcome_names_one(bench: Bench) -> None:
    outcomes = [ended(n, extra={"key": "ann"}, cost_nusd=7, error="rate_limited" if n == 2 else "") for n in (1, 2)]
    worker = folded(bench, *outcomes, ended(3), ended(4, extra={"key": "ann"}, workspace="other"))
    (use,) = worker.keys(A).values()
    assert (use.key, use.calls, use.errors, use.cost_nusd, use.last_at) == ("ann", 2, 1, 14, AT + 2)
    assert worker.last_used(A, "ann") == AT + 2
    assert worker.last_used(A, "ben") is None
    assert worker.keys(A, key="ben") == {}
    late = folded(bench, ended(5, extra={"key": "ann"}, at=AT - 10))
    assert late.last_used(A, "ann") == AT + 2, "an outcome that comes late is not the last"


def story(seed: int, count: int) -> list[Outcome]:
    """Outcomes of two tenants, some out of order, of models that fail, are left alone, and recover."""
    dice = random.Random(seed)
    made = []
    for number in range(count):
        who, other = dice.choice(((FAR, NEAR), (NEAR, FAR)))
        cause = dice.choice(("rate_limited", "connection_reset", "upstream_server_error"))
        answers, error, attempts = who, "", []
        match dice.randrange(6):
            case 0:
                error = cause
            case 1:
                attempts, answers = [tried(who, cause), tried(other, at_ms=9)], other
            case 2:
                attempts = [tried(who, cause), tried(who, at_ms=9)]
            case 3:
                attempts, answers = [tried(who, cause, sent=False), tried(other)], other
            case _:
                pass
        at = AT + number * 200.0 - dice.choice((0.0, 0.0, 5_000.0))
        extra: dict[str, Any] = {"key": dice.choice(("ann", "ben"))} | ({"attempts": attempts} if attempts else {})
        made.append(ended(number, answers, error, at=at, extra=extra, tenant=dice.choice("ab")))
    return made


@pytest.mark.parametrize("seed", range(8))
def test_from_zero_in_one_go_equals_bit_by_bit(bench: Bench, seed: int) -> None:
    dice, outcomes = random.Random(seed), story(seed, 120)
    worker = bench.worker()
    while outcomes:
        size = dice.randrange(1, 9)
        bench.add(*outcomes[:size])
        outcomes = outcomes[size:]
        # Now and then another worker is first.
        (bench.worker() if dice.random() < 0.3 else worker).catch_up(bench.ledger.head())
    worker.catch_up(bench.ledger.head())
    before = bench.rows()
    assert all(before), "the story fills every table"
    worker.clear()
    assert bench.rows() == [[], [], []]
    worker.catch_up(bench.ledger.head())
    assert bench.rows() == before


def test_two_workers_at_once_count_each_outcome_once(bench: Bench) -> None:
    bench.add(*story(3, 300))
    head, workers = bench.ledger.head(), [bench.worker() for _ in range(3)]
    threads = [threading.Thread(target=worker.catch_up, args=(head,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    after = bench.rows()
    workers[0].clear()
    workers[0].catch_up(head)
    assert bench.rows() == after


def test_a_look_folds_no_more_than_it_is_told_to(bench: Bench) -> None:
    bench.add(*(ended(number) for number in range(30)))
    worker = bench.worker()
    worker.catch_up(bench.ledger.head(), most=0)
    assert worker.cursor == 0
    worker.catch_up(bench.ledger.head() - 10)
    assert sum(hour.answered for hour in worker.hours(A)) == 20
    worker.catch_up(5)
    assert sum(hour.answered for hour in worker.hours(A)) == 20, "an earlier place changes nothing"


def test_a_call_without_an_outcome_moves_the_place_all_the_same(bench: Bench) -> None:
    bench.ledger.append_now(Call(id="call_1", at=AT, endpoint="chat", model="m", tenant="a"))
    worker = bench.worker()
    worker.catch_up(bench.ledger.head())
    assert worker.cursor == bench.ledger.head()


def test_episodes_come_page_by_page_without_a_gap(bench: Bench) -> None:
    causes = ("rate_limited", "connection_reset", "stream_idle")
    several = [tried(FAR, causes[1]), tried(FAR, causes[2]), tried(FAR, at_ms=5)]
    outcomes = []
    for number in range(12):
        at = AT + number * (QUIET_S + 60)
        outcomes.append(
            ended(2 * number, attempts=several if number % 3 == 0 else [tried(FAR, causes[0]), tried(FAR)], at=at)
        )
    worker = folded(bench, *outcomes)
    everything = worker.over(A, limit=1_000)
    assert len(everything) == 16
    paged: list[Episode] = []
    before = 0
    while page := worker.over(A, limit=2, before=before):
        paged += page
        before = page[-1].place
    assert paged == everything
    assert worker.over(Scope("b", "default")) == []


def test_who_can_mend_a_cause() -> None:
    assert [whose(cause) for cause in ("context_too_long", "rate_limited", "bug", "client_gone", "of_tomorrow")] == [
        "client", "operator", "developer", "nobody", "operator",
    ]  # fmt: skip


@pytest.mark.parametrize("change", [lambda scope: Scope("b", scope.workspace), lambda scope: Scope(scope.tenant, "w")])
def test_nobody_else_sees_it(bench: Bench, change: Callable[[Scope], Scope]) -> None:
    worker = folded(bench, ended(1, error="rate_limited", extra={"key": "ann"}), ended(2), ended(3, error="stream_cut"))
    other = change(A)
    assert worker.hours(A)
    assert (worker.hours(other), worker.going_on(other), worker.over(other), worker.keys(other)) == ([], [], [], {})
    assert worker.last_used(other, "ann") is None
