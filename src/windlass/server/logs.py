"""The log of a process: warnings and errors as lines on standard error, redacted.

structlog imports rich for tracebacks in colours where it is installed: 3.4 MB and 0.05 s of a server, which writes
plain ones. The package imports this file before any other, so that structlog finds no rich.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_TRACEBACKS = "rich"


@contextmanager
def _without(name: str) -> Iterator[None]:
    """Whoever tries to import `name` within is told that it is not there; what is loaded already stays."""
    loaded: dict[str, Any] = sys.modules
    if name in loaded:
        yield
        return
    loaded[name] = None
    try:
        yield
    finally:
        del loaded[name]


with _without(_TRACEBACKS):
    import structlog


def begin(redact: Callable[..., Any], formatter: logging.Formatter) -> None:
    """Set the log of this process up. redact: a structlog processor, the last; formatter: of libraries' own words."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Plain tracebacks: those with local variables would print keys and prompts.
            structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
            redact,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    if logging.lastResort is not None:  # where libraries' warnings and tracebacks go
        logging.lastResort.setFormatter(formatter)
