"""The AsyncAPI 3.0 document of an app, from the annotations that validate its messages.

from lilya.websockets.asyncapi import AsyncAPI

app.mount("/asyncapi", AsyncAPI(app))
"""

from ._app import AsyncAPI
from ._handlers import describe

__all__ = ["AsyncAPI", "describe"]
