"""How far a connection has come, as data.

A connection has one phase, and it only moves forward. What moves it is a step: something that the client, the
app or the server did. `AFTER[phase][step]` is the phase afterwards; a missing entry cannot happen. The
protocol moves its phase in one place, by `after`, so this table is everything that there is to know about it.

Phases are compared by their order: everything before OPEN is HTTP, everything up to CLOSING still reads
frames.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

__all__ = ["AFTER", "ASKED", "CLOSING", "DONE", "LOST", "OPEN", "REQUEST", "Phase", "after"]


class Phase(IntEnum):
    """How far a connection has come."""

    REQUEST = 0
    """The client's request is awaited (RFC 6455 section 4.2.1)."""
    ASKED = 1
    """The app has the request, and has not answered it."""
    OPEN = 2
    """The answer was 101: frames go in both directions."""
    CLOSING = 3
    """Our close frame is out, and the client's is awaited (section 7.1.2)."""
    DONE = 4
    """Nothing is read any more. What was written goes out, and then the transport closes."""
    LOST = 5
    """The transport is gone."""


REQUEST, ASKED, OPEN, CLOSING, DONE, LOST = Phase

AFTER: Final[tuple[dict[str, Phase], ...]] = (
    {  # REQUEST
        "asked": ASKED,
        # By an HTTP response of the server's own: the request is wrong, or the server stops.
        "finished": DONE,
        "lost": LOST,
    },
    {  # ASKED
        "accepted": OPEN,
        # By an HTTP response: the app has denied the request or failed, or the server stops.
        "finished": DONE,
        "lost": LOST,
    },
    {  # OPEN
        # The app or the server has sent a close frame first (RFC 6455 section 7.1.2).
        "closed": CLOSING,
        # The client has sent a frame that cannot be, or has not answered a ping (section 7.1.7).
        "failed": DONE,
        # The client has sent a close frame first, and was answered (section 5.5.1).
        "finished": DONE,
        "lost": LOST,
    },
    {  # CLOSING
        # It is no reason to send a second close frame (section 5.5.1).
        "failed": DONE,
        # The client has answered (section 7.1.4: closed cleanly).
        "finished": DONE,
        "lost": LOST,
    },
    {  # DONE
        "lost": LOST,
    },
    {  # LOST. What had arrived before is still read, and may end in a close frame or in a fault.
        "failed": LOST,
        "finished": LOST,
    },
)
"""By phase: what may happen in it, and the phase afterwards."""


def after(phase: Phase, step: str) -> Phase:
    """The phase after a step.

    Args:
        phase: The phase before it.
        step: What happened.

    Raises:
        RuntimeError: It cannot happen in this phase: a fault of the protocol.
    """
    try:
        return AFTER[phase][step]
    except KeyError:
        raise RuntimeError(f"a connection in phase {phase.name} cannot be {step}") from None
