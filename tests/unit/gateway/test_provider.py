"""Which provider answers for which model."""

from __future__ import annotations

import pytest
from tests.golden.application import Scripted

from windlass.errors import ModelUnknown
from windlass.gateway.options import ModelOptions
from windlass.gateway.provider import Providers
from windlass.gateway.providers.echo import Echo
from windlass.gateway.providers.local import FAST, Local


def _local() -> Local:
    return Local(None, lambda: 0.0)


def test_models_keep_the_order_of_the_settings() -> None:
    providers = Providers([Echo("b", "a"), _local()])
    assert providers.names() == ("b", "a", FAST)
    assert (providers.owner("a"), providers.owner(FAST)) == ("echo", "local")


def test_auto_prefers_the_upstream_models() -> None:
    assert Providers([Echo("a"), _local()]).routable() == ("a",)
    assert Providers([_local()]).routable() == (FAST,)
    assert Providers([]).routable() == ()


def test_a_model_is_offered_once() -> None:
    with pytest.raises(ModelUnknown, match="two providers offer a model named 'm'; rename one"):
        Providers([Echo("m"), Scripted(model=ModelOptions(name="m"))])


@pytest.mark.parametrize("model", ["", "nope", "x" * 10_000, "a\x00b", "AUTO"])
def test_an_unknown_model_is_answered_with_what_there_is(model: str) -> None:
    with pytest.raises(ModelUnknown, match="known models: auto, echo") as refused:
        Providers([Echo()]).find(model)
    assert len(str(refused.value)) < 500


async def test_closing_reaches_every_provider() -> None:
    class Closing(Echo):
        closed = 0

        async def close(self) -> None:
            self.closed += 1

    both = (Closing("a"), Closing("b"))
    await Providers(both).close()
    assert [one.closed for one in both] == [1, 1]
