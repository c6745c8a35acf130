"""schemathesis against the running server, by the document that it publishes: no server error, always what it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from tests.property.faithful import KEY, in_a_thread, on_disk
from tests.scenario.program import server

pytestmark = pytest.mark.scenario
EXAMPLES, SOAK = 5, 300
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def _published(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=10) as answer:
        document: dict[str, Any] = json.loads(answer.read())
    return document


def _with_real_names(document: dict[str, Any]) -> dict[str, Any]:
    """The document whose models are those that the server has, or every request would ask for one that it has not."""
    schemas = document["components"]["schemas"]
    for name in ("ChatHead", "ResponsesHead", "MessagesHead"):
        schemas[name]["properties"]["model"] = {"enum": ["plain", "translated", "gemini", "azure", "auto"]}
    written = json.dumps(document)
    return json.loads(re.sub(r'\{"type": "string", "examples": \["auto"\]\}', '{"enum": ["plain", "azure"]}', written))


def test_the_server_does_what_its_document_says(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    examples = SOAK if request.config.getoption("--soak") else EXAMPLES
    with in_a_thread() as upstream, server(tmp_path / "home", **on_disk(tmp_path, upstream)) as url:
        published = _published(url)
        assert all(jsonschema_rs.meta.is_valid(one) for one in published["components"]["schemas"].values())
        document = tmp_path / "openapi.json"
        document.write_text(json.dumps(_with_real_names(published)))
        arguments = [str(document), "--url", url, "-H", f"Authorization: Bearer {KEY}", "--checks", CHECKS]
        arguments += ["--max-examples", str(examples), "--seed", "4", "--workers", "1", "--continue-on-failure"]
        arguments += ["--phases", "examples,coverage,fuzzing", "--no-shrink", "--generation-database", "none"]
        arguments += ["--suppress-health-check", "all", "--warnings", "off", "--request-timeout", "30"]
        command = [str(Path(sys.executable).with_name("schemathesis")), "run", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=3_000, check=False)
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
    assert upstream.wrong == []
    assert len(upstream.asked) > examples, "calls came through"
    assert (generated := re.search(r"([0-9,]+) generated", done.stdout)), done.stdout[-2_000:]
    assert int(generated[1].replace(",", "")) > 20 * examples
