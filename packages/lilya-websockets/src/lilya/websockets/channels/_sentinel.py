"""Which server is the primary, according to the sentinels that monitor it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import anyio
from redis.exceptions import RedisError, ResponseError

from ._link import ask, new_connection, reason
from ._places import Address, Place

__all__ = ["finder"]

# The seconds to wait for the answers of the sentinels.
PATIENCE: Final = 1.0


class _Answer(NamedTuple):
    """What one sentinel says: a primary, or nothing for a reason."""

    primary: Address | None
    epoch: int = 0
    why: str = ""


def finder(place: Place) -> Callable[[], Awaitable[Address]]:
    """Returns a function that asks the sentinels, and returns the address of the primary.

    It raises `RedisError` if none of them names a primary.

    It asks all of them, because they may disagree. A sentinel that is cut off from the others does not learn
    of a failover, and goes on naming the old primary. Each failover has a number, its epoch, which is higher
    than the one before. So the answer with the highest epoch is the newest. Among answers of one epoch, the
    one that most sentinels give counts.
    """

    async def find() -> Address:
        answers = await asyncio.gather(*(_answer(place, address) for address in place.addresses))
        named = [answer for answer in answers if answer.primary is not None]
        votes = [answer.primary for answer in named]
        # In the end at random, so that the next attempt may have another server.
        newest = max(
            named,
            key=lambda answer: (answer.epoch, votes.count(answer.primary), random.random()),
            default=_Answer(None),
        )
        if newest.primary is None:
            raise RedisError(f"no sentinel names a primary ({'; '.join(answer.why for answer in answers)})")
        return newest.primary

    return find


async def _answer(place: Place, address: Address) -> _Answer:
    """The answer of one sentinel, whatever it says."""
    try:
        with anyio.fail_after(PATIENCE):
            return await _ask(place, address)
    except TimeoutError:
        why = f"no answer within {PATIENCE:g} s"
    except (RedisError, OSError) as error:
        why = reason(error)
    except Exception as error:  # the answer is of another form: it is no sentinel
        why = f"its answer cannot be read: {error!r}"
    return _Answer(None, why=f"{address[0]}:{address[1]}: {why}")


async def _ask(place: Place, address: Address) -> _Answer:
    host, port = address
    arguments: dict[str, Any] = {**place.sentinel_arguments, "host": host, "port": port}
    connection = new_connection(arguments, lambda: None)
    name = place.service.encode()
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
        found = await ask(connection, b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name)
        if not found:
            return _Answer(None, why=f"{host}:{port}: it knows no service {place.service!r}")
        try:
            fields = await ask(connection, b"SENTINEL", b"MASTER", name)
        except ResponseError:  # the user may not ask this
            fields = []
        epoch = dict(zip(fields[::2], fields[1::2], strict=False)).get(b"config-epoch", b"0")
        return _Answer((found[0].decode(), int(found[1])), int(epoch))
    finally:
        await connection.disconnect(nowait=True)
