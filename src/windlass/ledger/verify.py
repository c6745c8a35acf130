"""Whether the audit trail, its signed checkpoints and the sealed ledger rows are as they were written. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from windlass.errors import InputError
from windlass.ledger import checkpoint, schema
from windlass.ledger import seal as seals
from windlass.ledger.audit import BEFORE, CHECKPOINT, SEAL, START, AuditRow, digest_of
from windlass.ledger.checkpoint import Checkpoint
from windlass.ledger.db import Database
from windlass.ledger.signing import PUBLIC

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

PAGE = 1_000
FINDINGS = 20
"""So many findings are named; one change breaks much that comes after it."""


class Finding(msgspec.Struct, frozen=True):
    """What does not fit, and where: `audit row 12`, `checkpoint 3`, `ledger places 1 to 90`."""

    where: str
    why: str


class Verdict(msgspec.Struct, kw_only=True):
    """What was checked and what was found. unsigned: audit rows after the last checkpoint; unsealed_after: the
    ledger's place behind which rows are not sealed yet."""

    rows: int = 0
    checkpoints: int = 0
    seals: int = 0
    sealed_rows: int = 0
    unsigned: int = 0
    unsealed_after: int = 0
    keys: list[str] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)
    findings: list[Finding] = msgspec.field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.findings

    def found(self, where: str, why: str) -> None:
        """Note what does not fit, up to `FINDINGS`."""
        if len(self.findings) < FINDINGS:
            self.findings.append(Finding(where, why))


class _Lines(msgspec.Struct):
    """The lines of one file of checkpoints that can be read, with their digests, and the key that should sign them."""

    path: Path
    lines: list[tuple[Checkpoint, str]] = msgspec.field(default_factory=list)


class _Claim(msgspec.Struct):
    """What a checkpoint row of the trail says of the file at its time."""

    place: int
    key: str
    line: int
    digest: str


class _Trail(msgspec.Struct):
    """What one pass over the chain brings along."""

    last: int = 0
    digests: dict[int, str] = msgspec.field(default_factory=dict)
    seals: list[tuple[int, seals.Seal]] = msgspec.field(default_factory=list)
    claims: list[_Claim] = msgspec.field(default_factory=list)


def verify(db: Database, files: Sequence[Path], key: Path | None = None) -> Verdict:
    """Check everything. files: those with checkpoints, one for each machine that wrote some.

    key: the public key of all of them; without, the `key.pub` beside each file. InputError for a key that is none.
    """
    verdict = Verdict()
    signed = [_read(path, verdict) for path in files]
    trail = _chain(db, verdict, {line.place for file in signed for line, _ in file.lines})
    for file in signed:
        _signatures(file, trail, verdict, key)
    _claims(trail, [_read(path, Verdict()) for path in files], verdict)
    _seals(db, trail, verdict)
    _missing(db, trail, verdict)
    newest = max((line.place for file in signed for line, _ in file.lines), default=0)
    verdict.unsigned = max(0, trail.last - newest)
    return verdict


def _chain(db: Database, verdict: Verdict, wanted: set[int]) -> _Trail:
    """Every row follows the one before it. Stops at nothing, so that what comes later is looked at as well."""
    trail, previous = _Trail(), ""
    with db.read() as connection:
        for row in _rows(connection):
            verdict.rows += 1
            where = f"audit row {row.place}"
            if row.place != trail.last + 1:
                missing = f"rows {trail.last + 1} to {row.place - 1} are missing"
                verdict.found(where, missing if row.place > trail.last else "its place is taken twice, or below 1")
            elif row.previous != previous:
                verdict.found(where, "it does not follow the row before: one of the two was altered, moved or added")
            if _digest(row) != row.digest:
                verdict.found(where, "its content is not what its digest was made of: it was altered")
            trail.last, previous = row.place, row.digest
            if row.place in wanted:
                trail.digests[row.place] = row.digest
            _collect(row, trail, verdict)
        head = int(connection.scalar(sa.select(schema.heads.c.value).where(schema.heads.c.name == "audit")) or 0)
    if head != trail.last:
        verdict.found(f"audit row {trail.last + 1}", f"the trail ends at {trail.last}, its counter says {head}")
    return trail


def _rows(connection: sa.Connection) -> Iterator[AuditRow]:
    query = sa.select(schema.audit).order_by(schema.audit.c.place)
    with connection.execute(query, execution_options={"yield_per": PAGE}) as result:
        for page in result.mappings().partitions():
            for row in page:
                yield AuditRow(**row)


def _digest(row: AuditRow) -> str:
    """The digest that the row should have; '' for values that no row of ours can hold."""
    try:
        return digest_of(row)
    except (TypeError, ValueError, OverflowError):
        return ""


def _collect(row: AuditRow, trail: _Trail, verdict: Verdict) -> None:
    """Keep what seals and checkpoint rows say."""
    try:
        if row.place == 1 and row.action == START and (before := msgspec.json.decode(row.detail).get(BEFORE)):
            verdict.notes.append(
                f"the trail begins after place {before} of the ledger: what is before it was recorded without one, or "
                "its trail was removed"
            )
        if row.action == SEAL and not row.tenant:
            trail.seals.append((row.place, msgspec.json.decode(row.detail, type=seals.Seal)))
        elif row.action == CHECKPOINT and not row.tenant:
            said: Any = msgspec.json.decode(row.detail)
            trail.claims.append(_Claim(row.place, str(said["key"]), int(said["line"]), str(said["digest"])))
    except (msgspec.MsgspecError, AttributeError, KeyError, TypeError, ValueError) as exc:
        verdict.found(f"audit row {row.place}", f"what it says of a {row.action} cannot be read: {exc}")


def _read(path: Path, verdict: Verdict) -> _Lines:
    """The lines of a file; a last one that was cut off is a crash, any other that cannot be read a finding."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return _Lines(path)
    except OSError as exc:
        raise InputError(f"{path} cannot be read: {exc}; name the file with --checkpoints") from exc
    *whole, rest = data.split(b"\n")
    if rest:
        verdict.notes.append(f"{path}: the last line is cut off, as by a crash while it was written")
    found = _Lines(path)
    for number, line in enumerate(whole, start=1):
        try:
            read = msgspec.json.decode(line, type=Checkpoint)
        except msgspec.MsgspecError as exc:
            verdict.found(f"checkpoint {number}", f"its line in {path} cannot be read: {exc}")
            continue
        if read.line() != line + b"\n":
            verdict.found(f"checkpoint {number}", f"its line in {path} is not written as ours are: it was altered")
        found.lines.append((read, checkpoint.digest_of(line + b"\n")))
    return found


def _signatures(file: _Lines, trail: _Trail, verdict: Verdict, given: Path | None) -> None:
    """Each line is genuine, follows the one before it, and names a digest that the trail has at that place."""
    if not file.lines:
        return
    key = checkpoint.public_key(given or file.path.with_name(PUBLIC))
    mine, previous = checkpoint.fingerprint(key.public_bytes_raw()), ""
    verdict.keys.append(mine)
    for number, (line, digest) in enumerate(file.lines, start=1):
        verdict.checkpoints += 1
        if why := _wrong(line, key, mine, previous, number, trail):
            verdict.found(f"checkpoint {line.number} (audit row {line.place})", why)
        previous = digest


def _wrong(line: Checkpoint, key: Ed25519PublicKey, mine: str, previous: str, number: int, trail: _Trail) -> str:
    if line.key != mine:
        return f"it was signed with the key {line.key}, not with {mine}"
    if not checkpoint.genuine(line, key):
        return "its signature is not that of the key: the line was altered, or made by somebody else"
    if line.number != number or line.previous != previous:
        return "a line before it is missing, was altered or moved"
    if line.place not in trail.digests:
        return f"the trail has no row {line.place}: its end was cut off (the last row is {trail.last})"
    if trail.digests[line.place] != line.digest:
        return f"row {line.place} is another one than was signed: the trail was written anew up to there or before"
    return ""


def _claims(trail: _Trail, files: Iterable[_Lines], verdict: Verdict) -> None:
    """The trail names lines of the files: those must be there."""
    there = {(line.key, line.number, digest) for file in files for line, digest in file.lines}
    keys = {key for key, _, _ in there}
    for claim in trail.claims:
        if claim.line and (claim.key, claim.line, claim.digest) not in there:
            where = f"checkpoint {claim.line} (named by audit row {claim.place})"
            other = "" if claim.key in keys else f" and no other line of the key {claim.key}"
            verdict.found(where, f"it is not in the file{other}; was it replaced, or is it another machine's?")
    if trail.claims and trail.claims[-1].key not in keys:
        verdict.found(f"audit row {trail.claims[-1].place}", f"no checkpoint of its key {trail.claims[-1].key} is left")


def _seals(db: Database, trail: _Trail, verdict: Verdict) -> None:
    """Each seal goes on where the one before it ended, and the ledger's rows are still those that it counted."""
    for place, sealed in trail.seals:
        where = f"ledger places {sealed.after + 1} to {sealed.until} (sealed by audit row {place})"
        if sealed.format != seals.FORMAT:
            verdict.found(where, f"the seal has format {sealed.format}, which this release cannot check; update it")
        elif sealed.after != verdict.unsealed_after or sealed.until < sealed.after:
            verdict.found(where, f"the seal before it ends at {verdict.unsealed_after}: one is missing or was moved")
        else:
            for why in _differences(sealed, seals.again(db, sealed)):
                verdict.found(where, why)
        verdict.unsealed_after = sealed.until
        verdict.seals += 1
        verdict.sealed_rows += sealed.rows
    if astray := seals.misplaced(db):
        verdict.found("ledger places below 1", f"{astray} rows stand where none was ever written")


def _missing(db: Database, trail: _Trail, verdict: Verdict) -> None:
    """A ledger in use has a trail and checkpoints, since the first start of a server makes both."""
    if trail.claims or verdict.checkpoints:
        return
    used = seals.newest(db)
    advice = "it was removed, or no server has run here yet: if you know that none has, `windlass up` begins it"
    if used and not verdict.rows:
        verdict.found("audit trail", f"it has no row, though calls or decisions are in the ledger; {advice}")
    elif used:
        verdict.found("checkpoints", f"there is none, though the ledger is in use and the trail has rows; {advice}")
    else:
        verdict.notes.append(
            "there is no checkpoint yet: whoever can write the database could have made the trail anew"
        )


def _differences(was: seals.Seal, now: seals.Seal) -> Iterator[str]:
    for name in seals.COLUMNS:
        (before, digest), (after, found) = was.tables.get(name, (0, "")), now.tables.get(name, (0, ""))
        if before != after:
            yield f"{name}: {before} rows were sealed, {after} are there: some were {_moved(before, after)}"
        elif digest != found:
            yield f"{name}: the {before} rows are not as they were sealed: at least one was altered or exchanged"


def _moved(before: int, after: int) -> str:
    return "removed" if after < before else "added"
