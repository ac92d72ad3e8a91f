"""The life of a block, as data: every state with every event, without an event loop."""

from __future__ import annotations

from itertools import product

import pytest

from lilya.websockets import WebSocketRuntimeError
from lilya.websockets._conversation import LIFE, BlockState, after

NEW, OPEN, LEAVING, HANDED_ON, OVER, OVER_LEAVING, LEFT = BlockState
EVENTS = sorted({event for steps in LIFE.values() for event in steps})

LEGAL = {
    (NEW, "enter"): OPEN,
    (OPEN, "refuse"): NEW,
    (OPEN, "end"): OVER,
    (OPEN, "leave"): LEAVING,
    (LEAVING, "end"): OVER_LEAVING,
    (LEAVING, "hand on"): HANDED_ON,
    (LEAVING, "give back"): LEFT,
    (HANDED_ON, "end"): OVER_LEAVING,
    (HANDED_ON, "give back"): LEFT,
    (OVER, "leave"): OVER_LEAVING,
    (OVER_LEAVING, "give back"): LEFT,
}


@pytest.mark.contract("block-once", "block-closes")
@pytest.mark.parametrize(("state", "event"), list(product(BlockState, EVENTS)))
def test_every_state_and_event(state: BlockState, event: str) -> None:
    if (state, event) in LEGAL:
        assert after(state, event) is LEGAL[state, event]
    else:
        with pytest.raises(WebSocketRuntimeError, match=f"a block in state {state.name} cannot {event}"):
            after(state, event)


def test_an_event_that_is_none() -> None:
    with pytest.raises(WebSocketRuntimeError, match="cannot explode"):
        after(OPEN, "explode")


def walks(state: BlockState = NEW, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every way through a life, with one refusal at most."""
    found = [before] if state is LEFT else []
    for event, then in LIFE[state].items():
        if event != "refuse" or "refuse" not in before:
            found += walks(then, (*before, event))
    return found


def test_every_life_has_one_end_at_most_and_is_left_once() -> None:
    ways = walks()
    assert len(ways) > 5
    for way in ways:
        assert way.count("end") <= 1
        assert way.count("leave") == way.count("give back") == 1
        assert way[-1] == "give back"


def test_what_the_order_of_the_states_says() -> None:
    """`is_over` and `is_active` read it."""
    assert [state for state in BlockState if state >= OVER] == [OVER, OVER_LEAVING, LEFT]
    assert [state for state in BlockState if NEW < state < LEFT] == [
        OPEN,
        LEAVING,
        HANDED_ON,
        OVER,
        OVER_LEAVING,
    ]
