"""A WebSocket protocol for uvicorn: `uvicorn --ws lilya.websockets.uvicorn:WebSocketProtocol app:app`."""

import sys
from typing import TYPE_CHECKING, Any

try:
    from uvicorn.config import Config

    from ._protocol import WebSocketProtocol
except ModuleNotFoundError as error:
    raise ImportError(
        "lilya.websockets.uvicorn needs uvicorn and websockets: install lilya-websockets[uvicorn]"
    ) from error

if TYPE_CHECKING:
    from ._http import HTTPProtocol

__all__ = ["HTTPProtocol", "WebSocketProtocol"]


def __getattr__(name: str) -> Any:
    if name != "HTTPProtocol":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # uvicorn makes the class of `--ws` when the first handshake has come. That is late to learn of a mistake,
    # so it is looked for where uvicorn imports by name. A test tells if it no longer does it so.
    loading = sys._getframe(1)
    while loading is not None and loading.f_code is not Config.load.__code__:
        loading = loading.f_back  # type: ignore[assignment]
    if loading is not None and loading.f_locals["self"].ws == f"{__name__}:{name}":
        raise TypeError("HTTPProtocol was given with --ws; it goes with --http, beside WebSocketProtocol")
    from ._http import HTTPProtocol

    return HTTPProtocol
