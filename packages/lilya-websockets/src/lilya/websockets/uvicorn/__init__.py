"""A WebSocket protocol for uvicorn: `uvicorn --ws lilya.websockets.uvicorn:WebSocketProtocol app:app`."""

try:
    from ._http import HTTPProtocol
    from ._protocol import WebSocketProtocol
except ModuleNotFoundError as error:
    raise ImportError(
        "lilya.websockets.uvicorn needs uvicorn and websockets: install lilya-websockets[uvicorn]"
    ) from error

__all__ = ["HTTPProtocol", "WebSocketProtocol"]
