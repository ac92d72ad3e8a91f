"""The names of the ASGI extensions that the core uses and the protocol for uvicorn announces."""

from typing import Final

DENIAL: Final = "websocket.http.response"
"""ASGI's own: an HTTP response instead of an accepted connection. The types of its messages begin so, too."""

PREPARED: Final = "lilya.websocket.prepared"
"""One message to many connections, which the server frames once."""

END: Final = "lilya.websocket.end"
"""The server tells the end of a connection at once, and keeps what was not received."""
