"""Several objects over one connection: one state for all of them.

The rules of this file:

- The first object of ours over a connection holds the state. A further one is a second one: it is of its
  own class, and everything that is state leads to the first.
- An object of another framework keeps its own state. What we send and receive goes through it, so its
  state moves by its own code. What it sends and receives by itself goes through ours, see `Foreign`.
- `Foreign` makes no reference cycle: the server's side of a connection must not wait for the garbage
  collector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MethodType
from typing import Any, Final, TypeVar, cast
from weakref import ref

from ._state import CONNECTED, CONNECTING, DISCONNECTED, WebSocketState
from .types import Message, Receive, Send

__all__ = [
    "LEADING",
    "SHARED",
    "Foreign",
    "checked_foreign",
    "foreign_before",
    "name_of",
    "second_class",
    "states_of",
]

C = TypeVar("C", bound=type[Any])


class _OfFirst:
    """An attribute that a second object over a connection shares with the first."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, websocket: Any, owner: type) -> Any:
        return getattr(websocket._first, self._name)

    def __set__(self, websocket: Any, value: Any) -> None:
        setattr(websocket._first, self._name, value)


class _Send:
    """`_send` of a second object: its own if it was made with one, else the first's."""

    def __get__(self, websocket: Any, owner: type) -> Any:
        own = websocket._own_send
        return websocket._first._send if own is None else own

    def __set__(self, websocket: Any, send: Any) -> None:
        if websocket._own_send is None:
            websocket._first._send = send
        else:
            websocket._own_send = send


class _SendNow:
    """`_send_now` of a second object: whether there is one is shared, and which one it is follows `_send`."""

    def __get__(self, websocket: Any, owner: type) -> Any:
        return websocket._send if websocket._first._open else websocket._first._send_now

    def __set__(self, websocket: Any, send: Any) -> None:
        websocket._first._send_now = websocket._first._send if send is websocket._send else send


_STATE: Final = (
    "_receive",
    "_client_state",
    "_application_state",
    "_receive_now",
    "_receiving",
    "_ended",
    "close_code",
    "close_reason",
    "_cleanups",
    "accepted_subprotocol",
    "_conversation",
    "_unseen",
)

SHARED: Final[dict[str, Any]] = {
    **{name: _OfFirst(name) for name in _STATE},
    "_send": _Send(),
    "_send_now": _SendNow(),
}
"""What is not a second object's own. Its own are its class, what was parsed of the scope, and the `send` that
it was made with, which may lead through other middleware."""


def second_class(cls: C) -> C:
    """The class of second objects of a class: as that in everything but where the state is."""
    made: C | None = cls.__dict__.get("_second_class")
    if made is None:
        namespace = {"__module__": cls.__module__, "__doc__": cls.__doc__, **SHARED}
        made = cls._second_class = cast(C, type(cls.__name__, (cls,), namespace))
        made._second_class = made
    return made


class Foreign:
    """Stands before the `receive` and the `send` of a framework's object, and goes through our object.

    So ours sees what the framework does with its own: an accept in a dependency, a close in a handler of
    exceptions. A close after the end stays here: there is one end.
    """

    __slots__ = ("__weakref__", "_other", "_receive", "_send", "_websocket")

    def __init__(self, other: Any) -> None:
        self._websocket: Callable[[], Any] = _nobody
        receive, send = other.receive, other.send
        self._other: Callable[[], Any] = _nobody
        self._receive, self._send = receive, send
        if getattr(receive, "__self__", None) is other and getattr(send, "__self__", None) is other:
            try:
                # Methods of the object are held without it.
                self._other, self._receive, self._send = ref(other), receive.__func__, send.__func__
            except TypeError:
                pass  # an object with slots has no weak references

    @property
    def websocket(self) -> Any:
        """Our object over the same connection, or `None` if it is gone."""
        return self._websocket()

    @property
    def callables(self) -> tuple[Receive, Send]:
        """What it stands before."""
        other = self._other()
        if other is None:  # or it would have gone with its methods
            return self._receive, self._send
        return MethodType(self._receive, other), MethodType(self._send, other)

    def stand_before(self, other: Any, websocket: Any) -> None:
        """Go through `websocket` from now on. An object that cannot be changed is left as it is."""
        self._websocket = ref(websocket)
        try:
            other.receive, other.send = self.receive, self.send
        except AttributeError:
            pass  # its slots are not for us: ours does not see what it does by itself

    async def receive(self) -> Message:
        websocket = self._websocket()
        if websocket is not None:
            return await websocket._next("receive")  # type: ignore[no-any-return]
        return await self.callables[0]()

    async def send(self, message: Message) -> None:
        websocket = self._websocket()
        if websocket is not None:
            await websocket._relay(message)
            return
        await self.callables[1](message)


LEADING: Final[set[type]] = {Foreign}
"""Classes of objects that lead to ours, by their attribute `websocket`."""


def foreign_before(other: Any) -> Foreign | None:
    """What stands before a framework's object, if anything does; it may be the object itself."""
    if type(other) in LEADING:
        return other  # type: ignore[no-any-return]
    found = getattr(getattr(other, "receive", None), "__self__", None)
    return found if type(found) in LEADING else None


def _nobody() -> None:
    return None


# Their `receive` and `send` have the names of ASGI's, and take and give payloads. By the start of the module.
_PAYLOADS: Final = {
    "quart.": "use `websocket` of lilya.websockets.quart, see its page",
    "channels.generic.": "use ASGI's own callables in the consumer's place: WebSocket(scope, receive, send)",
}


def checked_foreign(other: Any) -> None:
    """See that an object carries a scope and the two ASGI callables.

    Raises:
        TypeError: It does not; the error names its class, and the way out.
    """
    way_out = _way_out(other.__class__)  # not `type`: a proxy says whose it is
    if way_out is not None:
        raise TypeError(
            f"websocket must carry ASGI's receive and send, and those of {name_of(other)} take and return "
            f"payloads: {way_out}"
        )
    scope = getattr(other, "scope", None)
    if (
        not (type(scope) is dict or isinstance(scope, Mapping))
        or not callable(getattr(other, "receive", None))
        or not callable(getattr(other, "send", None))
    ):
        raise TypeError(
            f"websocket must be a WebSocket, or an object that carries an ASGI scope, receive and send, got "
            f"{name_of(other)}. Where you have the three, use WebSocket(scope, receive, send)"
        )


@lru_cache(maxsize=64)
def _way_out(cls: type[Any]) -> str | None:
    """What to do with objects of a class whose callables take and return payloads; `None` for others."""
    for base in cls.__mro__:
        for module, way_out in _PAYLOADS.items():
            if f"{base.__module__}.".startswith(module):
                return way_out
    return None


def name_of(other: Any) -> str:
    """The full name of an object's class: frameworks have many a `WebSocket`."""
    cls = other.__class__
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


# What Litestar's object says of itself. It accepts by one call, so who has received the connect has accepted.
_STAGES: Final = {
    "init": (CONNECTING, CONNECTING),
    "connect": (CONNECTED, CONNECTED),
    "receive": (CONNECTED, CONNECTED),
    "disconnect": (DISCONNECTED, CONNECTED),
}


_STATES: Final = {state.name: state for state in WebSocketState}


def states_of(other: Any) -> tuple[WebSocketState, WebSocketState] | None:
    """Where a framework's object says that the two sides stand, or `None` if it says nothing."""
    try:
        client, application = other.client_state, other.application_state
        first = _STATES[client.name]
        return first, first if application is client else _STATES[application.name]
    except (AttributeError, KeyError):
        stage = getattr(other, "connection_state", None)
        return _STAGES.get(stage) if isinstance(stage, str) else None
