"""Which server is the primary, according to the sentinels that monitor it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from redis.exceptions import RedisError

from ._link import ask, new_connection, reason
from ._places import Address, Place

__all__ = ["finder"]

# The seconds to wait for the answer of a sentinel, before the next one is asked.
PATIENCE = 1.0


def finder(place: Place) -> Callable[[], Awaitable[Address]]:
    """Returns a function that asks the sentinels in turn, and returns the address of the primary.

    It asks the sentinel that answered last first, and raises `RedisError` if none of them names a primary.
    """
    addresses = list(place.addresses)

    async def find() -> Address:
        reasons: list[str] = []
        for address in list(addresses):
            host, port = address
            try:
                with anyio.fail_after(PATIENCE):
                    found = await _ask(place, address)
            except (RedisError, OSError, EOFError, ValueError) as error:
                why = f"no answer within {PATIENCE:g} s" if isinstance(error, TimeoutError) else reason(error)
                reasons.append(f"{host}:{port}: {why}")
                continue
            if found is None:
                reasons.append(f"{host}:{port}: it knows no service {place.service!r}")
                continue
            addresses.remove(address)
            addresses.insert(0, address)
            return found
        raise RedisError(f"no sentinel names a primary ({'; '.join(reasons)})")

    return find


async def _ask(place: Place, address: Address) -> Address | None:
    host, port = address
    arguments: dict[str, Any] = {**place.sentinel_arguments, "host": host, "port": port}
    connection = new_connection(arguments, lambda: None)
    try:
        await connection.connect()  # type: ignore[no-untyped-call]
        found = await ask(connection, b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", place.service.encode())
        return (found[0].decode(), int(found[1])) if found else None
    finally:
        await connection.disconnect(nowait=True)
