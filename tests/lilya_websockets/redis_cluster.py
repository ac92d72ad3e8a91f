"""For the tests: a real cluster of Redis, and a primary with sentinels. They leave nothing behind."""

from __future__ import annotations

import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, TypeVar

from .redis_server import LIMIT, NO_SERVER, RedisServer, free_port, redis_binary

__all__ = ["NO_CLUSTER", "RedisCluster", "SentinelServers", "can_cluster"]

NO_CLUSTER = f"no Redis 7 or newer, or Valkey: {NO_SERVER}"
SLOTS = 16_384
PONG = b"+PONG\r\n"

S = TypeVar("S", bound="Servers")


def can_cluster() -> bool:
    """Whether there is a server that has sharded pub/sub."""
    binary = redis_binary()
    if binary is None:
        return False
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=60).stdout
    return int(said.partition(" v=")[2].partition(".")[0] or 0) >= 7


def answer_of(answer: bytes) -> str:
    """The text of an answer that is one text."""
    if answer.startswith(b"$"):
        return answer.partition(b"\r\n")[2].decode().removesuffix("\r\n")
    return answer.decode().strip()


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for something that servers do among themselves."""
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"not within {LIMIT:g} seconds: {what}")
        time.sleep(0.01)


class Servers(ABC):
    """Several servers that end together; a context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self: S) -> S:
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @abstractmethod
    def _start(self) -> None:
        """Start them, and wait until they know each other."""

    def enter(self, *options: str) -> RedisServer:
        return self._stack.enter_context(RedisServer(*options))


class RedisCluster(Servers):
    """Some primaries, with a part of the slots each, and a replica of each if that is wanted.

    Args:
        primaries: How many.
        replicas: Whether each has one.
        spare: Primaries more that have no slots.
    """

    def __init__(self, primaries: int = 3, *, replicas: bool = False, spare: int = 0) -> None:
        super().__init__()
        self._counts = primaries, replicas, spare
        self.primaries: list[RedisServer] = []
        self.replicas: list[RedisServer] = []

    @property
    def servers(self) -> list[RedisServer]:
        return self.primaries + self.replicas

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        return f"redis+cluster://{hosts}"

    def _start(self) -> None:
        count, replicated, spare = self._counts
        self.primaries = [self._node() for _ in range(count + spare)]
        self.replicas = [self._node() for _ in range(count)] if replicated else []
        for number, server in enumerate(self.servers):
            must(server, "CLUSTER", "SET-CONFIG-EPOCH", f"{number + 1}")
            if number < count:
                first, last = SLOTS * number // count, SLOTS * (number + 1) // count - 1
                must(server, "CLUSTER", "ADDSLOTSRANGE", f"{first}", f"{last}")
            if number:
                bus = self.primaries[0].options[-1].partition(" ")[2]
                must(server, "CLUSTER", "MEET", "127.0.0.1", f"{self.primaries[0].port}", bus)
        until(lambda: all(map(self._is_whole, self.servers)), "the cluster is whole")
        for primary, replica in zip(self.primaries, self.replicas, strict=False):
            must(replica, "CLUSTER", "REPLICATE", self.id(primary))
        until(lambda: all(map(is_linked, self.replicas)), "the replicas follow")
        until(lambda: self.replicas == [] or all(self._knows_replicas(s) for s in self.servers), "are known")

    def _node(self) -> RedisServer:
        return self.enter(
            "cluster-enabled yes",
            "cluster-config-file nodes.conf",
            "cluster-node-timeout 1000",
            "cluster-replica-validity-factor 0",
            "repl-diskless-sync-delay 0",
            "appendonly no",
            f"cluster-port {free_port()}",
        )

    def _is_whole(self, server: RedisServer) -> bool:
        info = answer_of(server.ask("CLUSTER", "INFO"))
        return "cluster_state:ok" in info and f"cluster_known_nodes:{len(self.servers)}\r" in info

    def _knows_replicas(self, server: RedisServer) -> bool:
        return answer_of(server.ask("CLUSTER", "NODES")).count("slave") == len(self.replicas)

    def id(self, server: RedisServer) -> str:
        return answer_of(server.ask("CLUSTER", "MYID"))

    def owner(self, slot: int) -> RedisServer:
        """The primary that has a slot, by what it says itself."""
        (server,) = self.owners(slot)
        return server

    def owners(self, slot: int) -> list[RedisServer]:
        """All that say that they have it: for a moment, there may be none, or two."""
        return [server for server in self.servers if self._has(server, slot)]

    def _has(self, server: RedisServer, slot: int) -> bool:
        for line in answer_of(server.ask("CLUSTER", "NODES")).splitlines():
            fields = line.split()
            if "myself" in fields[2] and "master" in fields[2]:
                for part in fields[8:]:
                    first, _, last = part.partition("-")
                    if not part.startswith("[") and int(first) <= slot <= int(last or first):
                        return True
        return False

    # Resharding, in its steps

    def begin(self, slot: int, to: RedisServer) -> RedisServer:
        """Have a slot be on its way; the server that has it."""
        source = self.owner(slot)
        must(to, "CLUSTER", "SETSLOT", f"{slot}", "IMPORTING", self.id(source))
        must(source, "CLUSTER", "SETSLOT", f"{slot}", "MIGRATING", self.id(to))
        return source

    def move_keys(self, slot: int, source: RedisServer, to: RedisServer, count: int = 1000) -> None:
        """Move some keys of a slot."""
        found = source.ask("CLUSTER", "GETKEYSINSLOT", f"{slot}", f"{count}").split(b"\r\n")[2::2]
        for key in found:
            must(source, "MIGRATE", "127.0.0.1", f"{to.port}", key, "0", "5000", "REPLACE")

    def end(self, slot: int, source: RedisServer, to: RedisServer) -> None:
        """The slot is there; first the one that has it now is told."""
        for server in (to, source, *self.primaries):
            server.ask("CLUSTER", "SETSLOT", f"{slot}", "NODE", self.id(to))
        until(lambda: self.owners(slot) == [to], "the slot has one owner")

    def move(self, slot: int, to: RedisServer) -> None:
        """Move a slot with all of its keys."""
        source = self.begin(slot, to)
        self.move_keys(slot, source, to)
        self.end(slot, source, to)


class SentinelServers(Servers):
    """A primary, a replica, and sentinels that make the replica the primary when the other is away.

    Args:
        sentinels: How many; most of them must agree.
        password: Of the servers.
    """

    def __init__(self, sentinels: int = 3, *, password: str = "") -> None:
        super().__init__()
        self._count = sentinels
        self._password = password
        self.sentinels: list[RedisServer] = []

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.sentinels)
        return f"redis+sentinel://{hosts}/the-primary/0"

    def _start(self) -> None:
        options = ["repl-diskless-sync-delay 0"]
        if self._password:
            options += [f"requirepass {self._password}", f"masterauth {self._password}"]
        self.primary = self.enter(*options)
        self.replica = self.enter(*options, f"replicaof 127.0.0.1 {self.primary.port}")
        until(lambda: self._password or is_linked(self.replica), "the replica follows")
        most = self._count // 2 + 1
        for _ in range(self._count):
            sentinel = self._stack.enter_context(Sentinel())
            must(
                sentinel, "SENTINEL", "MONITOR", "the-primary", "127.0.0.1", f"{self.primary.port}", f"{most}"
            )
            settings = [("down-after-milliseconds", "500"), ("failover-timeout", "3000")]
            settings += [("auth-pass", self._password)] if self._password else []
            for name, value in settings:
                must(sentinel, "SENTINEL", "SET", "the-primary", name, value)
            self.sentinels.append(sentinel)
        until(lambda: all(map(self._knows_all, self.sentinels)), "the sentinels know each other")

    def _knows_all(self, sentinel: RedisServer) -> bool:
        said = sentinel.ask("SENTINEL", "MASTER", "the-primary").split(b"\r\n")
        found = dict(zip(said[2::4], said[4::4], strict=False))
        return (found.get(b"num-other-sentinels"), found.get(b"num-slaves")) == (
            b"%d" % (self._count - 1),
            b"1",
        )

    def named(self) -> int:
        """The port of the primary, as the sentinels name it."""
        said = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "the-primary").split(b"\r\n")
        return int(said[4])


class Sentinel(RedisServer):
    """A sentinel, that watches over nothing yet."""

    def ask(self, *parts: str | bytes) -> bytes:
        """As of a server; but a sentinel does not hang up when it is told to."""
        encoded = [part.encode() if isinstance(part, str) else part for part in (*parts, "PING")]
        count = 2 if parts == ("PING",) else 1
        *command, ping = [b"$%d\r\n%b\r\n" % (len(part), part) for part in encoded]
        answer = b""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT) as connection:
                connection.sendall(b"*%d\r\n" % len(command) + b"".join(command) + b"*1\r\n" + ping)
                while not answer.endswith(PONG) or answer.count(PONG) < count:
                    answer += connection.recv(65536) or PONG * count
        except OSError:
            return b""
        return answer.removesuffix(PONG)

    def _arguments(self) -> list[str]:
        with open(f"{self.folder}/sentinel.conf", "w") as file:
            file.write(f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\nlogfile {self.folder}/log\n")
        return [f"{self.folder}/sentinel.conf", "--sentinel"]


def is_linked(replica: RedisServer) -> bool:
    return b"master_link_status:up" in replica.ask("INFO", "replication")


def must(server: RedisServer, *parts: str | bytes) -> None:
    """Have a server do something that it cannot refuse."""
    answer = server.ask(*parts)
    if not answer.startswith((b"+OK", b"+NOKEY")):
        raise RuntimeError(f"{parts}: {answer!r}")
