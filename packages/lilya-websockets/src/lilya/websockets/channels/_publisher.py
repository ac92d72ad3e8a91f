"""Publishing without an event loop: from a Django view, a Celery task, or a script."""

from __future__ import annotations

import os
import re
import secrets
import socket
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from .._messages import checked_bytes, checked_text, dumps, encode_json
from ..exceptions import WebSocketRuntimeError
from ._backend import BrokerError, checked_name, checked_wishes

if TYPE_CHECKING:
    from ._redis import RedisBackend

__all__ = ["Publisher"]

# The seconds before a publish without an answer is sent again: the first time, and at most.
_AGAIN: Final = (0.05, 1.0)
# The most seconds that one try waits for the server. After that, the publish is sent again on a new
# connection, perhaps to another server.
_TRY: Final = 60.0
# The clients in an error of redis-py about sentinels. In some versions, they show the sentinels' password.
_CLIENTS: Final = re.compile(r"<redis\..*?\)>\)>\)> - ")


class _State:
    """What a publisher needs in one process: a connection, and a name with a number for each publish.

    A fork copies it. If both processes used it, Redis would take the publishes of one for retries of the
    other's, and drop them. So a process that finds its parent's state makes a new one. It does not change
    the old one, which other threads may be reading. If two threads each make a new one, each uses its own.
    """

    def __init__(self) -> None:
        self.process = os.getpid()
        self.publisher = b"p" + secrets.token_hex(6).encode()
        self.number = 0  # of the last publish
        self.client: Any = None
        # A reentrant lock, because a signal handler may publish in the middle of a publish, and would wait
        # for itself. It also knows whether this thread has it, see `Publisher.publish`.
        self.lock = threading.RLock()
        self.is_publishing = False

    def disconnect(self) -> None:
        client, self.client = self.client, None
        if client is not None:
            client.close()


class Publisher:
    """Publish to channels on Redis without an event loop, from any thread.

    The processes that listen use `Channels` with the same URL and the same `prefix`. A publisher connects
    when it publishes for the first time. Use it with `with`, or call `close` at the end. A process that was
    forked can use the publisher of its parent: it gets a connection of its own.

    An exception from a signal handler ends a publish. But an `OSError`, such as `TimeoutError`, looks like an
    outage, and the publish is sent again.

    Args:
        url: A URL of Redis, as for `Channels`: `redis://…`, `redis+cluster://…` and the like.
        history: The number of events kept in each channel. Give this and the other options the same values as
            for `Channels`.
        max_age: How long an event is kept, in seconds, or `None`.
        prefix: The start of all keys.
        publish_timeout: Seconds to wait for an answer of Redis. `None` waits without a limit.
        expire: Seconds after which a channel is forgotten if nobody publishes to it or reads it.
        credentials: A `CredentialProvider` of redis-py, instead of a password in the URL.

    Raises:
        ImportError: The extra `redis` is not installed.
        TypeError: An argument of the wrong type.
        ValueError: An argument out of range, or not a URL of Redis.
    """

    def __init__(
        self,
        url: str,
        *,
        history: int = 1000,
        max_age: float | None = 3600.0,
        prefix: str = "lilya",
        publish_timeout: float | None = 5.0,
        expire: float = 86_400.0,
        credentials: Any = None,
    ) -> None:
        if f"{url}".startswith("memory:"):
            raise ValueError(
                "a Publisher needs a URL of Redis: memory:// is the memory of one process. In that process, "
                "use `channels.publish_from_thread`"
            )
        try:
            from ._redis import RedisBackend
        except ImportError as error:
            raise ImportError(
                "publishing to redis:// needs the extra 'redis': install lilya-websockets[redis]"
            ) from error
        self._backend: RedisBackend = RedisBackend(
            url,
            history=history,
            max_age=max_age,
            prefix=prefix,
            publish_timeout=publish_timeout,
            expire=expire,
            credentials=credentials,
        )
        self._state = _State()

    def _own_state(self) -> _State:
        """The state of this process."""
        state = self._state
        if state.process != os.getpid():
            state = self._state = _State()
        return state

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def publish(
        self,
        channel: str,
        data: str | bytes | bytearray | memoryview,
        *,
        exclude: str | None = None,
        idempotency_key: str | None = None,
        history: int | None = None,
        max_age: float | None = None,
    ) -> str:
        """Publish an event. When it returns, the event is kept.

        Args:
            channel: The channel's name.
            data: Text that encodes to UTF-8, or bytes-like.
            exclude: The receivers that do not get the event: those that joined with this `key`, or the one
                with this `id`.
            idempotency_key: See `Channels.publish`.
            history: The number of events to keep in the channel from now on, see `Channels.publish`.
            max_age: The seconds to keep this event, see `Channels.publish`.

        Returns:
            The event's id.

        Raises:
            TypeError: An argument of the wrong type.
            ValueError: An invalid name, or text with a lone surrogate.
            BrokerError: Redis refuses, or does not answer within `publish_timeout`. The error says whether
                the event may have been kept. It is never kept twice.
            WebSocketRuntimeError: The call is in a signal handler that has interrupted another publish.
        """
        checked = checked_text(data) if isinstance(data, str) else checked_bytes(data)
        wishes = checked_wishes(exclude, idempotency_key, history, max_age)
        name = checked_name(channel)
        state = self._own_state()
        parts = self._backend.publish_parts(name, checked, wishes, state.publisher)
        # The time limit includes the wait for other threads: during an outage, each of them keeps the lock
        # until its own limit.
        until = time.monotonic() + self._backend.timeout
        try:
            # Inside the block: a signal handler may raise an exception at any moment, also when the lock has
            # just been taken.
            if not state.lock.acquire(timeout=min(self._backend.timeout, threading.TIMEOUT_MAX)):
                raise BrokerError(
                    f"cannot publish to {channel!r}: other threads have waited for Redis at "
                    f"{self._backend.where} for {self._backend.timeout:g} seconds. It was not sent"
                )
            if state.is_publishing:
                raise WebSocketRuntimeError(
                    f"cannot publish to {channel!r}: a signal handler has interrupted another publish of "
                    "this thread. Publish after the handler, or in another thread"
                )
            try:
                state.is_publishing = True
                state.number += 1
                return self._ask(state, channel, (*parts, b"%d" % state.number), until)
            finally:
                state.is_publishing = False
        finally:
            try:
                state.lock.release()
            except RuntimeError:  # this thread has not taken it
                pass

    def publish_json(self, channel: str, data: Any, **wishes: Any) -> str:
        """Publish a value as JSON text; see `Channels.publish_json`.

        Args:
            channel: The channel's name.
            data: Any value that JSON can hold.
            **wishes: The keyword arguments of `publish`.

        Raises:
            TypeError: The data, or a value in it, cannot be encoded as JSON.
            Exception: Also what `publish` raises.
        """
        return self.publish(channel, encode_json(data, dumps), **wishes)

    def close(self) -> None:
        """Disconnect. Publishing again connects again."""
        state = self._own_state()
        with state.lock:
            state.disconnect()

    def _ask(self, state: _State, channel: str, parts: tuple[bytes, ...], until: float) -> str:
        """Send a publish until there is an answer. By its number, Redis recognizes it, and stores it once.

        The caller holds the lock, so the numbers of this publisher arrive in rising order.
        """
        from redis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError
        from redis.sentinel import MasterNotFoundError

        from ._link import reason
        from ._redis import published

        name, *arguments = parts
        command = (name.decode(), *arguments)  # as text, because the client for clusters reads it
        delay, most = _AGAIN
        unknown = ""  # says that an earlier try may have succeeded
        while True:
            try:
                if state.client is None:
                    state.client = self._backend.synchronous_client(_TRY)
                try:
                    answer = state.client.execute_command(*command)
                except NoScriptError:
                    for source in self._backend.publish_scripts:
                        state.client.script_load(source)
                    answer = state.client.execute_command(*command)
                return published(answer)
            except ResponseError as error:
                raise BrokerError(
                    f"cannot publish to {channel!r}: Redis refuses: {reason(error)}{unknown}"
                ) from error
            except (RedisError, OSError) as error:
                if not (
                    isinstance(error, (AuthenticationError, MasterNotFoundError))
                    or isinstance(error.__context__, (ConnectionRefusedError, socket.gaierror))
                ):  # there was a connection, or there may have been one
                    unknown = ". It may have been kept before"
                if isinstance(error, MasterNotFoundError):
                    error = MasterNotFoundError(_CLIENTS.sub("", str(error)))
                if time.monotonic() + delay > until:
                    end = ". It may have been kept" if unknown else ". It was not sent"
                    raise BrokerError(
                        f"cannot publish to {channel!r}: no answer from Redis at {self._backend.where} "
                        f"within {self._backend.timeout:g} seconds: {reason(error)}{end}"
                    ) from error
                time.sleep(delay)
                delay = min(2 * delay, most)
            except BaseException:
                # An exception from a signal handler, such as `KeyboardInterrupt`. The answer may still come
                # on this connection, and the next publish would take it for its own.
                state.disconnect()
                raise
