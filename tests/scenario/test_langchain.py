"""langchain-openai against the real server: a chat model and an embedder like any other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from tests.scenario.program import rows, server

pytestmark = pytest.mark.scenario
PASSAGES = "A pawl drops into the teeth of the wheel. It keeps the drum from turning back.\n\nWhat keeps the drum?"
QUOTE = "> It keeps the drum from turning back. [p1]"
TEXTS = ["A pawl holds the load.", "The pawl keeps the drum from turning.", "Bread is baked in an oven."]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@dataclass(frozen=True)
class Langchain:
    """langchain-openai pointed at the server, over connections of the test: those it makes itself it never closes."""

    base_url: str
    http_client: httpx.Client
    http_async_client: httpx.AsyncClient | None = None

    def chat(self, model: str = "local/quotes-fast") -> ChatOpenAI:
        return ChatOpenAI(**vars(self), api_key="none", model=model, max_retries=0, stream_usage=True)

    def embedder(self, model: str = "all-minilm-l6-v2") -> OpenAIEmbeddings:
        # Without the check it sends texts; with it, token numbers of a model that is not ours.
        plain = {"max_retries": 0, "check_embedding_ctx_length": False}
        return OpenAIEmbeddings(**vars(self), api_key="none", model=model, **plain)


@pytest.fixture(scope="module")
def langchain(home: Path) -> Iterator[Langchain]:
    with server(home) as url, httpx.Client() as connections:
        yield Langchain(f"{url}/v1", connections)


@pytest.fixture
async def asynchronous(langchain: Langchain) -> AsyncIterator[Langchain]:
    async with httpx.AsyncClient() as connections:
        yield replace(langchain, http_async_client=connections)


def test_invoke_answers_with_usage_and_is_recorded(langchain: Langchain, home: Path) -> None:
    reply = langchain.chat("auto").invoke([SystemMessage("Answer briefly."), HumanMessage(PASSAGES)])
    assert isinstance(reply, AIMessage)
    assert QUOTE in reply.text
    assert reply.response_metadata["finish_reason"] == "stop"
    usage = reply.usage_metadata
    assert usage is not None
    newest = rows(
        home,
        "SELECT c.model, o.model, o.prompt_tokens, o.completion_tokens FROM calls c "
        "JOIN outcomes o ON o.call = c.id ORDER BY c.seq DESC LIMIT 1",
    )
    assert newest == [("auto", reply.response_metadata["model_name"], usage["input_tokens"], usage["output_tokens"])]


def test_a_stream_says_the_same_as_invoke(langchain: Langchain) -> None:
    chat = langchain.chat()
    chunks = list(chat.stream(PASSAGES))
    assert len(chunks) > 1
    assert "".join(chunk.text for chunk in chunks) == chat.invoke(PASSAGES).text
    usages = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    assert len(usages) == 1
    assert usages[0]["total_tokens"] == usages[0]["input_tokens"] + usages[0]["output_tokens"] > 0


def test_a_batch_keeps_its_order(langchain: Langchain) -> None:
    things = ["drum", "rope", "anchor", "chain", "winch", "brake", "crank", "gear"]
    asked = [
        f"The {thing} is held by pawl {n}. Rain falls.\n\nWhat holds the {thing}?" for n, thing in enumerate(things)
    ]
    replies = langchain.chat().batch(list(asked), config={"max_concurrency": 4})
    for n, (thing, reply) in enumerate(zip(things, replies, strict=True)):
        assert f"> The {thing} is held by pawl {n}." in reply.text


def test_a_chain_of_prompt_model_and_parser(langchain: Langchain) -> None:
    prompt = ChatPromptTemplate.from_messages([("human", "{passage}\n\n{question}")])
    chain = prompt | langchain.chat() | StrOutputParser()
    passage = "A pawl drops into the teeth of the wheel. It keeps the drum from turning back."
    assert QUOTE in chain.invoke({"passage": passage, "question": "What keeps the drum?"})


async def test_async_calls_say_the_same(asynchronous: Langchain) -> None:
    chat = asynchronous.chat()
    reply = await chat.ainvoke(PASSAGES)
    assert QUOTE in reply.text
    assert "".join([chunk.text async for chunk in chat.astream(PASSAGES)]) == reply.text
    assert [one.text for one in await chat.abatch([PASSAGES] * 3)] == [reply.text] * 3


def test_embeddings_put_like_beside_like(langchain: Langchain) -> None:
    embedder = langchain.embedder()
    vectors = np.array(embedder.embed_documents(TEXTS))
    assert vectors.shape[0] == 3
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-3)
    pawl, drum, bread = vectors
    assert pawl @ drum > pawl @ bread + 0.1
    assert np.array(embedder.embed_query(TEXTS[0])) @ pawl > 0.999


async def test_async_embeddings_say_the_same(asynchronous: Langchain) -> None:
    embedder = asynchronous.embedder()
    vectors = await embedder.aembed_documents(TEXTS)
    assert np.array(vectors) == pytest.approx(np.array(embedder.embed_documents(TEXTS)), abs=1e-4)


def test_errors_are_openais_own(langchain: Langchain) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        langchain.chat("nobody").invoke("x")
    assert (unknown.value.status_code, unknown.value.code, unknown.value.param) == (404, "model_not_found", "model")
    with pytest.raises(openai.NotFoundError) as streamed:
        list(langchain.chat("nobody").stream("x"))
    assert streamed.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as empty:
        langchain.chat().invoke([])
    assert (empty.value.status_code, empty.value.param) == (400, "messages")
    with pytest.raises(openai.NotFoundError) as embedder:
        langchain.embedder("nobody").embed_query("x")
    assert embedder.value.code == "model_not_found"


async def test_async_errors_are_openais_own(asynchronous: Langchain) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await asynchronous.chat("nobody").ainvoke("x")
    assert unknown.value.code == "model_not_found"


def test_a_batch_returns_its_errors_where_asked_to(langchain: Langchain) -> None:
    good, bad = langchain.chat().batch([PASSAGES, []], return_exceptions=True)
    assert QUOTE in good.text
    assert isinstance(bad, openai.BadRequestError)
