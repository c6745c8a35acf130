"""Wrong arguments are told by name, with their value and what they may be."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from windlass.errors import InputError
from windlass.server.reading import CallAsked, CallsAsked, DecisionsAsked, FeedbackAsked, Query, read

BOUND = "a whole number from 1 to 1000"


@pytest.mark.parametrize(
    ("kind", "arguments", "told"),
    [
        (CallsAsked, {"limit": 0}, f"limit is 0; it must be {BOUND}; the arguments are: limit, before, model"),
        (CallsAsked, {"limit": -1}, f"limit is -1; it must be {BOUND}"),
        (CallsAsked, {"limit": 1_001}, f"limit is 1001; it must be {BOUND}"),
        (CallsAsked, {"limit": 10**5_000}, f"limit is a number of thousands of digits; it must be {BOUND}"),
        (CallsAsked, {"limit": "5"}, f"limit is '5'; it must be {BOUND}"),
        (CallsAsked, {"limit": float("nan")}, f"limit is nan; it must be {BOUND}"),
        (CallsAsked, {"limit": True}, f"limit is True; it must be {BOUND}"),
        (CallsAsked, Query(limit="0"), f"limit is '0'; it must be {BOUND}"),
        (CallsAsked, Query(limit="many"), f"limit is 'many'; it must be {BOUND}"),
        (CallsAsked, {"model": 7}, "model is 7; it must be text"),
        (CallsAsked, {"model": ["x" * 5_000]}, f"model is ['{'x' * 58}…; it must be text"),
        (CallsAsked, {"since": [1]}, "since is [1]; it must be a number or text"),
        (CallsAsked, {"nope": 1}, "there is no argument 'nope'; the arguments are: limit, before"),
        (CallsAsked, {"no `p` $.limit": 1}, "there is no argument 'no `p` $.limit'; the arguments are"),
        (CallAsked, {}, "call is missing; the arguments are: call, bodies"),
        (CallAsked, [1], "the arguments are no mapping of names to values; the arguments are: call"),
        (DecisionsAsked, {"live": "maybe"}, "live is 'maybe'; it must be true or false"),
        (FeedbackAsked, {"kind": "bad"}, "kind is 'bad'; it must be one of complaint, correction, praise"),
    ],
)
def test_the_argument_and_its_bound_are_named(kind: type[msgspec.Struct], arguments: Any, told: str) -> None:
    with pytest.raises(InputError) as raised:
        read(arguments, kind)
    assert str(raised.value).startswith(told)
    assert "Expected" not in str(raised.value)
    assert " - at " not in str(raised.value)
