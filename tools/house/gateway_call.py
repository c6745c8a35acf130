"""Lists the own files in which a function starts during one gateway call; runs alone: `gateway_call.py SOURCE`.

Every thread is profiled from before the client exists, because the client may answer on a thread of its own; what is
seen outside a measured call is dropped. Prints one line of JSON, `{"files": [...]}`, relative to the package.
"""

from __future__ import annotations

import dis
import inspect
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

WARM_UP_CALLS = 3
MEASURED_CALLS = 5
QUIET_S = 0.1
QUESTION = "Why does a windlass have pawls?"
RESUME = dis.opmap["RESUME"]
SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class StartedFiles:
    """A profile function that keeps the files below `package` in which a function starts while `recording`."""

    def __init__(self, package: Path) -> None:
        self._prefix = f"{package}/"
        self.recording = False
        self.files: set[str] = set()

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if self.recording and event == "call":
            name = frame.f_code.co_filename
            if name.startswith(self._prefix) and starts(frame):
                self.files.add(name.removeprefix(self._prefix))


def starts(frame: FrameType) -> bool:
    """Whether the function begins here; a coroutine that goes on after an `await` does not.

    RESUME carries 0 in its low two bits at the start and something else after a yield or an await.
    """
    code = frame.f_code
    if not code.co_flags & SUSPENDABLE:
        return True
    at = max(frame.f_lasti, 0)
    return code.co_code[at] != RESUME or not code.co_code[at + 1] & 3


def call_files(seen: StartedFiles, home: Path) -> set[str]:
    """The most files that one of several warm calls ran. This is the place to edit when the client changes."""
    from windlass import Client

    # What is learned from a call afterwards, in the background, is no part of it.
    vars(sys.modules.get("windlass.runtime", sys)).update(LEARN_DELAY_S=3_600.0)
    vars(sys.modules.get("windlass.watch.watch", sys)).update(EVERY_S=3_600.0)
    most: set[str] = set()
    with Client(home=home) as client:
        for number in range(WARM_UP_CALLS + MEASURED_CALLS):
            time.sleep(QUIET_S)
            seen.files, seen.recording = set(), number >= WARM_UP_CALLS
            client.chat(messages=[{"role": "user", "content": QUESTION}], model="auto")
            seen.recording = False
            most = max(most, seen.files, key=len)
    return most


def main() -> None:
    """Measures the package below the folder given as the only argument."""
    source = Path(sys.argv[1]).resolve()
    sys.path.insert(0, str(source))
    seen = StartedFiles(source / "windlass")
    threading.setprofile(seen)
    sys.setprofile(seen)
    with tempfile.TemporaryDirectory() as home:
        files = call_files(seen, Path(home))
    sys.setprofile(None)
    print(json.dumps({"files": sorted(files)}))


if __name__ == "__main__":
    main()
