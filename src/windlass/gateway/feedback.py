"""Feedback as it comes in over any door, checked and made a record."""

from __future__ import annotations

import math
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from windlass.errors import RequestError
from windlass.gateway.access.admission import Caller, require
from windlass.ledger import ids
from windlass.records import Feedback, FeedbackKind, FeedbackSource, Scope

Id = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_.:-]+\Z")]
EARLIEST_S = 946_684_800.0  # 2000-01-01: an older time is a unit mistake
AHEAD_S = 86_400.0


class FeedbackRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a client sends. `value` is in [0, 1]; without `id` one is made, so a repeat counts again."""

    target: Id
    kind: FeedbackKind
    source: FeedbackSource = "user"
    metric: Annotated[str, Meta(min_length=1, max_length=100)] = "quality"
    value: float | None = None
    comment: Annotated[str, Meta(max_length=10_000)] = ""
    id: Id | None = None
    at: float | None = None

    @classmethod
    def read(cls, said: bytes | dict[str, Any]) -> FeedbackRequest:
        """From JSON bytes or plain fields. RequestError where they are no feedback."""
        try:
            return msgspec.json.decode(said, type=cls) if isinstance(said, bytes) else msgspec.convert(said, cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise RequestError(f"not a feedback: {exc}", code="invalid_feedback") from exc

    def said_by(self, caller: Caller) -> FeedbackRequest:
        """This, where the caller may speak as its `source`. AccessError for a viewer's key that claims to be more.

        Keys that are handed to the users of an application are viewers: what they send is a user's word. Managers,
        reviewers and checks weigh more in what the policies learn, so they take an operator's key.
        """
        if self.source != "user":
            require(caller, "operator")
        return self

    def record(self, scope: Scope, now: float) -> Feedback:
        """The record of it. RequestError where value or time make no sense, or a rating has no value."""
        if self.value is not None and not 0.0 <= self.value <= 1.0:
            raise RequestError(f"value is {self.value}; send a number from 0 to 1", param="value")
        if self.kind == "rating" and self.value is None:
            raise RequestError("a rating needs a value from 0 to 1", param="value")
        for name, text in (("metric", self.metric), ("comment", self.comment)):
            if "\x00" in text or text != text.encode(errors="replace").decode():
                raise RequestError(f"{name} holds a character that cannot be stored; remove it", param=name)
        at = now if self.at is None else self.at
        if not math.isfinite(at) or not EARLIEST_S <= at <= now + AHEAD_S:
            raise RequestError(f"at is {at}; send seconds since 1970 in UTC, not in the future", param="at")
        return Feedback(
            id=self.id or ids.new("feedback", now),
            at=at,
            tenant=scope.tenant,
            workspace=scope.workspace,
            # What a reply calls itself is the call it came from.
            target=self.target.removeprefix("chatcmpl-"),
            kind=self.kind,
            source=self.source,
            metric=self.metric,
            value=self.value,
            comment=self.comment,
        )
