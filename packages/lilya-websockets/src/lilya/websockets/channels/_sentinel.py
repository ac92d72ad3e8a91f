"""Which server is the primary, according to the sentinels that monitor it.

Sentinels may disagree. One that is cut off from the others does not learn of a failover, and goes on naming
the old primary. Each failover has a number, its epoch, which is higher than the one before. So the answer
with the highest epoch is the newest.

An old primary that was only cut off, or stood still for a while, is writable for some more seconds after the
failover. What is published there is lost. So a process that is still connected to it has to leave it.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any, Final, NamedTuple

import anyio
from redis.exceptions import RedisError, ResponseError

from ._link import ask, new_connection, reason
from ._places import Address, Place

__all__ = ["Sentinels"]

# The seconds to wait for the answer of a sentinel.
PATIENCE: Final = 1.0
# The seconds after which the next sentinel is asked whether there was a failover.
AGAIN: Final = 1.0


class _Answer(NamedTuple):
    """What one sentinel says: a primary, or nothing for a reason."""

    primary: Address | None
    epoch: int = 0
    why: str = ""


class Sentinels:
    """The sentinels of a primary.

    Args:
        place: The addresses of the sentinels, and the name that they have for the primary.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._found = _Answer(None)  # the newest answer that names the primary in use
        self._turns = itertools.cycle(place.addresses)

    async def find(self) -> Address:
        """The address of the primary, according to the newest answer.

        Among answers of one epoch, the one that most sentinels give counts.

        Raises:
            RedisError: None of them names a primary.
        """
        answers = await asyncio.gather(*map(self._answer, self._place.addresses))
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
        self._found = newest
        return newest.primary

    async def failover(self) -> Address:
        """Wait until a sentinel tells of a later failover. Returns the address of the new primary.

        The next call returns it again, until `find` has found it: the process may be connecting to the old
        primary meanwhile, and go on with it.
        """
        while True:
            await asyncio.sleep(AGAIN)
            # One at a time costs little, and is enough: all that are not cut off learn of a failover.
            answer = await self._answer(next(self._turns))
            if answer.primary is not None and answer.epoch > self._found.epoch:
                if answer.primary != self._found.primary:
                    return answer.primary
                self._found = answer

    async def _answer(self, address: Address) -> _Answer:
        """The answer of one sentinel, whatever it says."""
        try:
            with anyio.fail_after(PATIENCE):
                return await self._ask(address)
        except TimeoutError:
            why = f"no answer within {PATIENCE:g} s"
        except (RedisError, OSError) as error:
            why = reason(error)
        except Exception as error:  # the answer is of another form: it is no sentinel
            why = f"its answer cannot be read: {error!r}"
        return _Answer(None, why=f"{address[0]}:{address[1]}: {why}")

    async def _ask(self, address: Address) -> _Answer:
        host, port = address
        arguments: dict[str, Any] = {**self._place.sentinel_arguments, "host": host, "port": port}
        connection = new_connection(arguments, lambda: None)
        name = self._place.service.encode()
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            found = await ask(connection, b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name)
            if not found:
                return _Answer(None, why=f"{host}:{port}: it knows no service {self._place.service!r}")
            try:
                fields = await ask(connection, b"SENTINEL", b"MASTER", name)
            except ResponseError:  # the user may not ask this
                fields = []
            epoch = dict(zip(fields[::2], fields[1::2], strict=False)).get(b"config-epoch", b"0")
            return _Answer((found[0].decode(), int(found[1])), int(epoch))
        finally:
            await connection.disconnect(nowait=True)
