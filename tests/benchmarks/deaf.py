"""A protocol that does not hear that its client has stopped to read."""

from __future__ import annotations

from lilya.websockets.uvicorn import WebSocketProtocol


class Protocol(WebSocketProtocol):
    """It keeps whatever it is told to send."""

    __slots__ = ()

    def pause_writing(self) -> None:
        """Go on."""

    def resume_writing(self) -> None:
        """Go on."""
