"""For Lilya: an error in a handler goes to the server, which logs it, and the connection ends once.

`ErrorsToServer` is middleware, the first of an app: `Lilya(middleware=[DefineMiddleware(ErrorsToServer)])`.
Everything else of this package works in Lilya without another module: it takes the place of
`lilya.websockets`.
"""

from __future__ import annotations

import sys

from ._messages import checked_close
from .types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["ErrorsToServer"]


class ErrorsToServer:
    """Middleware that passes unhandled exceptions of WebSocket handlers on to the server.

    Without it, Lilya catches such an exception and sends a close with an HTTP status as its code, which no
    server may send, and the exception's text as its reason, also after a block has closed. With this
    middleware, the exception reaches the server instead, as in other frameworks.

    Args:
        app: The app inside of the middleware.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run what is inside."""
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return

        async def checked(message: Message) -> None:
            # Lilya sends this while it handles the exception.
            error = sys.exc_info()[1]
            if error is not None and message["type"] == "websocket.close" and not _is_sendable(message):
                raise error
            await send(message)

        await self.app(scope, receive, checked)


def _is_sendable(close: Message) -> bool:
    try:
        checked_close(close.get("code"), None)
    except (TypeError, ValueError):
        return False
    return True
