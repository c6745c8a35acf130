"""What is known of the newest calls of a workspace, folded from the ledger as the policies' rewards are."""

from __future__ import annotations

from typing import Final

from windlass.ledger.folded import FoldedCall, FoldedDecision, FoldedErasure, FoldedFeedback, FoldedOutcome
from windlass.ledger.folding import narrowed
from windlass.ledger.ids import is_imported
from windlass.ledger.ledger import Ledger
from windlass.policies.accounts import Accounts
from windlass.records import Scope

_PAGE: Final = 2_000


def known(ledger: Ledger, scope: Scope, point: str, newest: int, *, after: int = 0) -> Accounts:
    """The accounts of at most so many calls, with their live decisions at one point. Nobody else's rows are read.

    after: the entry behind which it begins to read. What was said late, twice or again counts as it does for the
    policies: the newest of each source and metric.
    """
    accounts = Accounts(newest, taught=(point,))
    place, head = after, ledger.head()
    while found := ledger.read(scope, after=place, limit=_PAGE):
        for row in narrowed(found):
            match row:
                case FoldedCall() if not _foreign(row.id):
                    accounts.open(row)
                case FoldedDecision() if row.form.live and row.form.point == point:
                    accounts.act(row)
                case FoldedOutcome() if not _foreign(row.call):
                    accounts.end(row)
                case FoldedFeedback() if not _foreign(row.id):
                    accounts.note(row)
                case FoldedErasure():
                    accounts.erase(row)
                case _:
                    pass
        place = found[-1].seq
        if place >= head:
            break
    return accounts


def _foreign(name: str) -> bool:
    """Whether what has this id was imported: nobody decided it here."""
    return "-" in name and is_imported(name)
