"""The command line: `python -m tools.house [--list] [--json] [--root PATH]`.

Exit status 0: every aim is held. 1: at least one is not. 2: the tree cannot be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tools.house import duplicates, imports, names, outside, running, shape
from tools.house.tree import Measure, load

LISTED = 10


def measure(root: Path) -> list[Measure]:
    """Takes every measure of the project at `root`, whose package is `src/windlass`."""
    source = root / "src"
    modules = load(source / "windlass")
    return [
        imports.cycles(modules),
        *shape.files(modules),
        *shape.functions(modules),
        outside.environment_readers(modules),
        outside.core_purity(modules),
        names.global_statements(modules),
        names.repeated_classes(modules),
        names.empty_names(modules),
        duplicates.duplicated_windows(modules),
        running.gateway_call(source),
        *running.import_cost(source),
        shape.root_entries(root),
    ]


def table(measures: Sequence[Measure]) -> str:
    """The measures as text: metric, value, aim, ok."""
    rows = [("metric", "value", "aim", "ok")]
    for one in measures:
        value = "FAILED" if one.value is None else f"{one.value:g}"
        rows.append((one.name, value, one.aim, "yes" if one.ok else f"NO {one.reason}".rstrip()))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]}" for row in rows]
    return "\n".join(lines)


def offenders(measures: Sequence[Measure]) -> str:
    """The top offenders of each measure; files and functions are listed while their aim holds, too."""
    blocks: dict[tuple[str, ...], str] = {}
    for one in measures:
        if one.offenders:
            more = len(one.offenders) - LISTED
            tail = [f"... and {more} more"] if more > 0 else []
            lines = "\n".join(f"  {line}" for line in [*one.offenders[:LISTED], *tail])
            # The three measures of file length share one list, which is shown once.
            blocks.setdefault(one.offenders, f"{one.name} ({one.aim})\n{lines}")
    return "\n\n".join(blocks.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table (or one JSON object) and answers with the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.house", description="Measure the house style of src/windlass."
    )
    parser.add_argument("--list", action="store_true", help="print the top offenders of each measure")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parents[2], help="the project's root")
    given = parser.parse_args(arguments)
    try:
        measures = measure(given.root.resolve())
    except (FileNotFoundError, SyntaxError) as error:
        print(f"house: {error}", file=sys.stderr)
        return 2
    held = all(one.ok for one in measures)
    if given.json:
        print(json.dumps({"ok": held, "measures": [asdict(one) for one in measures]}))
    else:
        print(table(measures))
        if given.list:
            print(f"\n{offenders(measures)}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
