"""What typed messages, `WebSocket[In, Out]`, can be given: codecs, and the fields of requests and answers.

Nothing here is needed for `WebSocket[In, Out]` itself, which comes from `lilya.websockets`.
"""

from ._codecs import JSON, Codec, MessagePack
from ._kinds import CallId, ReplyTo

__all__ = ["JSON", "CallId", "Codec", "MessagePack", "ReplyTo"]
