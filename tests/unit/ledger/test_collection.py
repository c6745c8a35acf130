"""The garbage collector rests where it was asked to, and is afterwards as it was."""

from __future__ import annotations

import gc

import pytest

from windlass.ledger import collection


@pytest.mark.parametrize("on", [True, False])
def test_resting_leaves_the_collector_as_it_was(on: bool) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        with collection.resting(), collection.resting():
            assert not gc.isenabled()
        assert gc.isenabled() is on
    finally:
        (gc.enable if was else gc.disable)()


def test_a_server_collects_seldom_and_not_what_it_loaded() -> None:
    before = gc.get_threshold()
    with pytest.raises(KeyError), collection.rarely():
        assert gc.get_threshold()[0] == collection.ALLOCATED > before[0]
        assert gc.get_freeze_count() > 1_000
        raise KeyError
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
