"""Our protocol for uvicorn, compressing as uvicorn's default and zlib do."""

from lilya.websockets.uvicorn import WebSocketProtocol


class Protocol(WebSocketProtocol):
    compression_level = 6
