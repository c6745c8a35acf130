"""langchain-tests' ChatModelIntegrationTests for ChatOpenAI through the real server, over every way that a chat goes.

The upstream does as it is asked (`scripted_upstream.py`), so that all of the suite's tests run. `without` names those
that a dialect has no place for, and the measurement that wants recorded cassettes. The pictures, papers and sounds that
the suite loads from the web are small ones of our own.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

from tests.scenario.program import server
from tests.scenario.scripted_upstream import running

# One event loop: the client keeps its connections for all of the process. The warnings are the client's own.
pytestmark = [
    pytest.mark.scenario,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PAPER = b"%PDF-1.1\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
SOUND = base64.b64decode("UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=")
WEB = {".png": PIXEL, ".pdf": PAPER, ".wav": SOUND}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def base_url(home: Path) -> Iterator[str]:
    config = home / "windlass.toml"
    with running() as upstream:
        providers = {
            "chat": 'kind = "openai_compatible"',
            "native": 'kind = "openai_compatible"\nendpoints = ["responses"]',
            "claude": 'kind = "anthropic"',
        }
        config.write_text(
            "\n".join(
                f'[[providers]]\nname = "{name}"\nbase_url = "{upstream}"\n{kind}\n'
                f'models = [{{ name = "{name}" }}, {{ name = "{name}-2" }}]'
                for name, kind in providers.items()
            )
        )
        with server(home, WINDLASS_CONFIG=str(config)) as url:
            yield f"{url}/v1"


MEASURED = "test_stream_time"
TOOLS_SHOW = ("test_image_tool_message", "test_pdf_tool_message")


class Through(ChatModelIntegrationTests):
    """What ChatOpenAI can. `model_name` is whose upstream answers; `more` are its settings.

    without: tests that do not run, see `conftest.py`.
    """

    without: tuple[str, ...] = (MEASURED,)

    model_name = "chat"
    more: dict[str, Any] = {}
    supports_json_mode = True
    supports_image_inputs = True
    supports_image_urls = True
    supports_pdf_inputs = True
    supports_audio_inputs = True
    supports_image_tool_message = True
    supports_pdf_tool_message = True
    supports_anthropic_inputs = True

    @pytest.fixture(autouse=True)
    def _through(self, base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._base_url = base_url
        monkeypatch.setenv("LANGCHAIN_TESTS_USER_AGENT", "windlass")
        monkeypatch.setattr(httpx, "get", lambda url, **_: httpx.Response(200, content=WEB[Path(url).suffix]))

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        plain = {"base_url": self._base_url, "api_key": "none", "max_retries": 0, "stream_usage": True}
        return {"model": self.model_name, **plain, **self.more}

    @property
    def model_override_value(self) -> str:
        return f"{self.model_name}-2"


class TestChat(Through):
    """Chat, the upstream's own dialect: nothing is translated."""


class TestChatByMessages(Through):
    """Chats that go up as Anthropic Messages, which take no sound, and no JSON without a schema: both are refused.

    So are pictures and papers that a tool answers with, for which chat has no place.
    """

    model_name = "claude"
    without = (MEASURED, "test_json_mode", "test_audio_inputs", *TOOLS_SHOW)
    supports_json_mode = False
    supports_audio_inputs = False
    supports_image_tool_message = False
    supports_pdf_tool_message = False


class TestResponses(Through):
    """Responses, the upstream's own dialect."""

    model_name = "native"
    more = {"use_responses_api": True}


class TestResponsesByChat(Through):
    """Responses that go up as chats, where a tool answers in text."""

    more = {"use_responses_api": True}
    without = (MEASURED, *TOOLS_SHOW)
    supports_image_tool_message = False
    supports_pdf_tool_message = False


class TestResponsesByMessages(TestResponsesByChat):
    """Responses that become chats, which go up as Anthropic Messages."""

    model_name = "claude"
    without = (MEASURED, "test_json_mode", "test_audio_inputs", *TOOLS_SHOW)
    supports_json_mode = False
    supports_audio_inputs = False
