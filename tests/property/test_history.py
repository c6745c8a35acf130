"""Exports with anything in them: what is exact stays exact, twice is once, and no file breaks the reading."""

from __future__ import annotations

import gzip
import json
import string
import tempfile
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from windlass.errors import InputError
from windlass.gateway.history import formats, values
from windlass.gateway.history.past import Past, call_id, call_of, outcome_of
from windlass.gateway.history.shapes import Broken, Found
from windlass.gateway.history.source import Export
from windlass.ledger import ids, partitions
from windlass.records import Scope

NOW = 1_790_000_000.0
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
ROW = st.dictionaries(st.text(string.ascii_letters + '"\\,{}[]\n é😀', min_size=1, max_size=6), JSON, max_size=4)
FIELDS = sorted(
    {field for name in ("request_id", "call_type", "startTime", "endTime", "completionStartTime", "spend", "status")
     for field in (name,)}
    | {"id", "type", "value", "name", "dataType", "traceId", "timestamp", "object", "created", "usage", "custom_id"}
    | {"response", "created_at", "generation_id", "cost_total", "metadata", "messages", "usageDetails", "body", "url"}
)  # fmt: skip


@given(st.decimals(min_value=0, max_value=1_000, places=15))
def test_dollars_round_half_even_once(usd: Decimal) -> None:
    exact = int((usd * 10**9).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))
    assert values.nusd({"cost": usd}, "cost") == values.nusd({"cost": str(usd)}, "cost") == exact


@given(st.lists(ROW, max_size=6), st.sampled_from(["lines", "array", "wrapped"]), st.booleans(), st.booleans())
def test_every_shape_of_file_gives_back_its_rows(rows: list[Any], shape: str, packed: bool, spread: bool) -> None:
    rows = [row for row in rows if "data" not in row]
    said = {
        "lines": "".join(json.dumps(row) + "\n" for row in rows),
        "array": json.dumps(rows, indent=2 if spread else None),
        "wrapped": json.dumps({"has_more": False, "data": rows}, indent=2 if spread else None),
    }[shape]
    found = _read(gzip.compress(said.encode()) if packed else said.encode())
    assert all(isinstance(item, Found) for item in found)
    assert [repr(item.row) for item in found if isinstance(item, Found)] == [
        repr(json.loads(json.dumps(row), parse_float=Decimal, parse_constant=Decimal)) for row in rows
    ]


@given(st.binary(max_size=300) | st.text('{}[]":,\n1e-NaI ', max_size=80).map(str.encode), st.booleans())
def test_no_bytes_break_the_reading(data: bytes, packed: bool) -> None:
    for item in _read(gzip.compress(data)[: len(data)] if packed else data):
        assert isinstance(item, Found | Broken)


@example({"object": []}, "openai")
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=10), st.sampled_from(list(formats.FORMATS)))
def test_a_row_is_a_call_that_can_be_stored_or_is_refused_with_a_reason(row: dict[str, Any], program: Any) -> None:
    one = formats.FORMATS[program]
    one.fits(row)
    refused = ""
    told: Any = None
    try:
        told = one.read(row, NOW)
    except InputError as exc:
        refused = str(exc)
    assert told is not None or refused.partition(": ")[0].isidentifier()
    if isinstance(told, Past):
        call = call_of(Scope(), told)
        assert outcome_of(call, told).cost_nusd >= 0


@given(
    st.floats(min_value=946_684_800, max_value=NOW),
    st.text(min_size=1, max_size=20),
    st.sampled_from(["default", "acme"]),
)
def test_a_calls_id_tells_its_day_and_is_the_same_again(at: float, source: str, tenant: str) -> None:
    past = Past(program="openai", source=source, at=at, endpoint="chat", model="m", answered="m", provider="openai")
    name = call_id(Scope(tenant), past)
    assert name == call_id(Scope(tenant), past) != call_id(Scope("other"), past)
    assert partitions.day_of(name) == int(at // 86_400)
    assert ids.is_imported(name)


def _read(data: bytes) -> list[Found | Broken]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return list(Export(Path(file.name)).rows())
