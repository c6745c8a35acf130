"""`import windlass`: a small surface that costs next to nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import windlass

HEAVY = ("litellm", "torch", "dbos", "onnxruntime", "onnx", "tokenizers", "aiohttp", "sqlalchemy", "numpy", "uvicorn")
PROBE = """
import json, sys, time
started = time.process_time()
import windlass
names = sorted(windlass.__all__)
listed = dir(windlass)
loaded = [name for name in {heavy} if name in sys.modules]
print(json.dumps([loaded, time.process_time() - started, set(names) <= set(listed)]))
"""


def test_importing_it_loads_nothing_heavy_and_takes_no_time() -> None:
    """CPU seconds, the best of three: the machine may be busy."""
    found = []
    for _ in range(3):
        ran = subprocess.run(
            [sys.executable, "-c", PROBE.format(heavy=HEAVY)], capture_output=True, text=True, check=True, timeout=60
        )
        found.append(json.loads(ran.stdout))
    assert [loaded for loaded, _, _ in found] == [[], [], []]
    assert min(took_s for _, took_s, _ in found) <= 0.15
    assert all(listed for _, _, listed in found)


def test_the_client_loads_neither_the_workflow_engine_nor_torch() -> None:
    probe = (
        "import sys; from windlass import Client; print([n for n in ('litellm', 'torch', 'dbos') if n in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("name", windlass.__all__)
def test_every_name_loads_and_is_itself(name: str) -> None:
    found = getattr(windlass, name)
    assert found is getattr(sys.modules[found.__module__], name)
    assert found.__doc__, "what is public says what it is for"


def test_the_surface_is_about_twenty_names_in_order() -> None:
    assert 15 <= len(windlass.__all__) <= 25
    assert sorted(windlass.__all__) == windlass.__all__


@pytest.mark.parametrize("name", ["Nope", "client_", "__path__x"])
def test_an_unknown_name_says_what_there_is(name: str) -> None:
    with pytest.raises(AttributeError, match=f"no attribute '{name}'; it has AccessError"):
        getattr(windlass, name)
    with pytest.raises(ImportError):
        exec(f"from windlass import {name}")
