"""The process' log: plain lines on standard error, redacted, without rich."""

from __future__ import annotations

import json
import subprocess
import sys

PROBE = """
import json, logging, sys
{before}
import windlass.server.logs as logs
import structlog
found = [name for name in ("rich", "pygments") if name in sys.modules]
import rich.traceback
logs.begin(lambda _logger, _name, line: line.replace("secret", "[gone]"), logging.Formatter("%(message)s!"))
log = structlog.get_logger()
try:
    value = "a local secret"
    1 / 0
except ZeroDivisionError:
    log.error("it_broke", reason="a secret", exc_info=True)
log.info("not_told")
logging.getLogger("library").warning("words")
print(json.dumps(found))
"""


def said(before: str = "") -> tuple[list[str], str]:
    command = [sys.executable, "-c", PROBE.format(before=before)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(ran.stdout), ran.stderr


def test_a_log_line_is_plain_redacted_and_without_the_values_of_variables() -> None:
    loaded, told = said()
    assert loaded == []
    assert "it_broke" in told
    assert "[gone]" in told
    assert "secret" not in told.replace('value = "a local secret"', "")
    assert "ZeroDivisionError" in told
    assert "not_told" not in told
    assert told.endswith("words!\n")
    assert "\x1b" not in told


def test_rich_can_be_loaded_before_it_and_after_it() -> None:
    loaded, told = said("import rich")
    assert "rich" in loaded
    assert "it_broke" in told
