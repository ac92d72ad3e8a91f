"""A Redis cluster: which node has which slot, how a change is noticed, and how a request gets to its node.

The rules of this file:

- There is a link to each primary. When a node has no slots any more, its link is closed, and the requests
  that wait for it go to other nodes.
- Anything that suggests that a slot has moved (`MOVED`, an outage, a channel that was unsubscribed) makes the
  cluster ask the nodes for all slots, first the node that was named. It asks until each slot has a node that
  answers.
- The requests about one channel form a lane, and go to one node at a time. When a node redirects a request,
  the request waits until all earlier ones of its lane are answered there, and goes before all later ones. So
  the numbers of publishes rise in each channel, whichever nodes have it.
- A publish that was redirected was not done, and gets a new number. A publish that had no answer before may
  have been done, and keeps its number. If a later one was kept meanwhile, the server can no longer tell from
  the number whether it was done. Then it fails, and the error says so.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import anyio
from redis.asyncio.connection import Connection
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from ._backend import BrokerError
from ._keys import SLOTS, slot_of
from ._link import Asking, Link, Pipe, Request, ask, fail, new_connection, reason
from ._listening import Listener
from ._places import Address, Place
from ._scripts import Script

__all__ = ["Cluster", "Node", "Route"]

# Ranges of slots, and the addresses of the primary and the replicas that have them.
View = list[tuple[int, int, list[Address]]]

logger: Final = logging.getLogger("lilya.websockets")

# Seconds in which a node must have answered where the slots are.
_PATIENCE: Final = 1.0
# Seconds before the nodes are asked again: the first time, and the most.
_AGAIN: Final = (0.05, 1.0)
# Seconds before a request is sent on that was sent on before: the first time, and the most.
_ON: Final = (0.01, 0.5)
# Seconds for which a node without slots is kept after something was asked there.
_IDLE: Final = 30.0


@dataclass(eq=False)  # by identity: nodes are keys
class Node:
    """One server: its link, with the three lines."""

    link: Link
    publishing: Pipe
    asking: Pipe
    listener: Listener
    asked_at: float = 0.0

    async def stop(self) -> None:
        """End the lines. What was asked stays in the pipes."""
        await self.link.stop()
        self.listener.stop()

    def pipe(self, name: str) -> Pipe:
        """One of the two pipes."""
        return self.publishing if name == "publishing" else self.asking


class Cluster:
    """The nodes of a cluster.

    Args:
        place: Some of its nodes.
        make: Makes what there is for a node.
        prepare: Sees that a connection can be used.
        scripts: Are told to each node.
    """

    def __init__(
        self,
        place: Place,
        make: Callable[[Link], Node],
        prepare: Callable[[Connection, str], Awaitable[None]],
        scripts: Collection[Script],
    ) -> None:
        self._place = place
        self._scripts = scripts
        self._make = make
        self._prepare = prepare
        self._loop = asyncio.get_running_loop()
        self.where = place.where
        self.reason = ""
        self.ready = anyio.Event()
        self.nodes: dict[Address, Node] = {}
        self._owners: list[Node | None] = [None] * SLOTS
        self._others: set[Address] = set()  # replicas, who can be asked, too
        # Of the newest view of the cluster. Nodes that were cut off have older views, and must not win.
        self._epoch = -1
        self._first: Address | None = None  # who is to be asked first
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.routes: list[Route] = []
        self.settled: Callable[[], None] = lambda: None
        self.lost: Callable[[], None] = lambda: None

    # For the routes and the feed

    @property
    def down(self) -> set[str]:
        """The lines that an outage has taken."""
        return {line for node in self.nodes.values() for line in node.link.down}

    def owner(self, slot: int) -> Node | None:
        """The node that has a slot."""
        return self._owners[slot]

    def listener(self, slot: int) -> Listener | None:
        """Where the channels of a slot are heard."""
        node = self._owners[slot]
        return None if node is None else node.listener

    def primaries(self) -> list[Node]:
        """The nodes that have slots."""
        return list(dict.fromkeys(node for node in self._owners if node is not None))

    def node_at(self, address: Address) -> Node:
        """The node at an address."""
        node = self.nodes.get(address)
        if node is None:
            host, port = address
            arguments = {**self._place.arguments, "host": host, "port": port}
            link = Link(arguments, f"{host}:{port}", self._prepare, self._scripts, changed=self._changed)
            node = self.nodes[address] = self._make(link)
            # It is the first line, which notices an outage and ends it, so it is there in any case.
            node.publishing.line.start()
        return node

    def importing(self, address: Address) -> Node:
        """A node that a slot is on its way to."""
        node = self.node_at(address)
        node.asked_at = self._loop.time()
        return node

    def astray(self, slot: int, error: ResponseError | None) -> None:
        """A slot is not where it was thought to be."""
        if isinstance(error, MovedError):
            # The node says itself where the slot is. Requests go there at once, and a full view follows.
            address = self._address(error)
            self._first = address
            self._owners[slot] = self.node_at(address)
        self.want()

    def want(self) -> None:
        """Have the nodes asked where the slots are."""
        self._wanted.set()

    def lose(self, error: BaseException) -> None:
        """Trust no connection any more."""
        for node in list(self.nodes.values()):
            node.link.lose(error)

    # Starting and stopping

    async def start(self) -> None:
        """Find the nodes, and see that one of them can be used."""
        await self._refresh()
        node = self.primaries()[0]
        connection = await node.link.connect("publishing")
        await connection.disconnect()
        for node in self.primaries():
            node.publishing.line.start()
        self._see_whether_it_is_ready()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Let go of all nodes."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for node in self.nodes.values():
            await node.stop()
            node.publishing.stop()
            node.asking.stop()

    async def _run(self) -> None:
        first, most = _AGAIN
        delay = first
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                try:
                    await self._refresh()
                finally:  # a `MOVED` has changed the owners even if no node has answered just now
                    await self._settle()
            except Exception as error:  # also what nobody expects: without this task an outage would not end
                self.reason = reason(error)
            # Always: during a migration each request could ask for another view.
            await asyncio.sleep(random.uniform(delay / 2, delay))
            if self.ready.is_set() and not self._wanted.is_set():
                delay = first
            else:
                self._wanted.set()
                delay = min(2 * delay, most)

    # Where the slots are

    async def _refresh(self) -> None:
        """Ask the nodes in turn, until one has a view that is not older than what is known."""
        # In random order: otherwise all processes ask the same node.
        others = [*{*self._place.addresses, *self.nodes, *self._others}]
        random.shuffle(others)
        if self._first is not None:
            others.insert(0, self._first)
            self._first = None
        best: tuple[int, View] | None = None
        reasons = []
        for address in dict.fromkeys(others):
            try:
                with anyio.fail_after(_PATIENCE):
                    epoch, slots = await self._ask(address)
            except Exception as error:  # what cannot be read is no answer
                reasons.append(f"{address[0]}:{address[1]}: {reason(error)}")
                continue
            if best is None or epoch > best[0]:
                best = epoch, slots
            if epoch >= self._epoch:
                break  # else a node that was cut off: perhaps another one knows more
        if best is None:
            raise RedisError(f"no node of the cluster answers ({'; '.join(reasons)})")
        self._epoch, slots = best
        self._take(slots)

    async def _ask(self, address: Address) -> tuple[int, View]:
        """What a node says about the cluster, and how new that is."""
        host, port = address
        # A connection of its own, closed at once: the lines may be busy with what this is needed for.
        connection = new_connection({**self._place.arguments, "host": host, "port": port}, lambda: None)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            try:
                info = await ask(connection, b"CLUSTER", b"INFO")
                slots = await ask(connection, b"CLUSTER", b"SLOTS")
            except ResponseError as error:
                raise RedisError(f"it does not say which node has which slot: {reason(error)}") from error
        finally:
            await connection.disconnect(nowait=True)
        lines = (line.partition(":") for line in info.decode("utf-8", "replace").splitlines())
        epoch = {name: value for name, _, value in lines}.get("cluster_current_epoch", "")
        if not slots:
            raise RedisError("it knows no slots: is it a node of a cluster?")
        return int(epoch or 0), [
            (first, last, [(_host(name, host), int(port)) for name, port, *_ in servers])
            for first, last, *servers in slots
        ]

    def _take(self, slots: View) -> None:
        """Take over a view of the cluster."""
        owners: list[Node | None] = [None] * SLOTS
        self._others = set()
        for first, last, addresses in slots:
            owners[first : last + 1] = [self.node_at(addresses[0])] * (last + 1 - first)
            self._others.update(addresses[1:])
        if owners != self._owners:
            self._owners = owners
            self.lost()  # a slot at another node may have lost its data on the way

    def _address(self, error: AskError) -> Address:
        """Where an answer sends to. Without a host it means that of whoever has answered."""
        return _host(error.host, self._place.addresses[0][0]), int(error.port)

    def asked_address(self, error: AskError) -> Address:
        """Where an answer says that a slot is on its way to."""
        return self._address(error)

    async def _settle(self) -> None:
        """Send each request, and subscribe to each channel, at the node that has the slot now."""
        # First what waits for the wrong node. What was sent already gets its answer there.
        for node in list(self.nodes.values()):
            for route in self.routes:
                route.take_back(node, all=False)
        self.settled()
        owners = self.primaries()
        for address, node in list(self.nodes.items()):
            # A node that is importing its first slot has none yet, and may have been asked.
            if node not in owners and node.asked_at < self._loop.time() - _IDLE:
                del self.nodes[address]
                await node.stop()
                if node.link.down:
                    logger.warning(
                        "Redis at %s has no slots any more: its part is elsewhere", node.link.where
                    )
                for route in self.routes:
                    route.take_back(node, all=True)
                node.publishing.stop()
                node.asking.stop()
        for route in self.routes:
            route.go_on()
        self._see_whether_it_is_ready()

    def _changed(self) -> None:
        """An outage has begun or ended, or goes on."""
        self.lost()
        self._see_whether_it_is_ready()
        if not self.ready.is_set():
            self.want()

    def _see_whether_it_is_ready(self) -> None:
        down = [node.link for node in self.primaries() if node.link.down]
        if down:
            self.reason = down[0].reason
        elif None in self._owners:
            self.reason = "some slots have no node"
        else:
            self.ready.set()
            return
        if self.ready.is_set():
            self.ready = anyio.Event()


def _host(name: str | bytes | None, asked: str) -> str:
    """A host as a node names it. If it does not know the name, it is that of whoever was asked."""
    text = name.decode() if isinstance(name, bytes) else name
    return text if text and text != "?" else asked


class _Routed(Request):
    """A request that can be sent on from node to node."""

    __slots__ = ("ask_at", "asks", "is_put", "lane", "order", "turns")

    def __init__(
        self, parts: Sequence[bytes], future: asyncio.Future[Any], number: int | None, lane: _Lane, order: int
    ) -> None:
        super().__init__(parts, future, number)
        self.lane = lane
        self.order = order  # among all of its route, as callers have made them
        self.turns = 0  # how often it was sent on
        self.asks = False
        self.ask_at: Address | None = None  # where an `ASK` has sent it, for one time
        self.is_put = False  # into a pipe
        future.add_done_callback(self._done)

    def redirected(self, error: ResponseError) -> bool:
        cluster = self.lane.route.cluster
        # `ASK` is for this request only: the node keeps the slot until all keys have moved. In redis-py
        # `MovedError` is a kind of `AskError`.
        if isinstance(error, AskError) and not isinstance(error, MovedError):
            self.ask_at = cluster.asked_address(error)
        elif isinstance(error, (MovedError, TryAgainError, ClusterDownError, MasterDownError)):
            cluster.astray(self.lane.slot, error)
        else:
            return False
        self.turns += 1
        self.lane.back(self)
        return True

    def _done(self, future: asyncio.Future[Any]) -> None:
        self.lane.done(self)


class _Lane:
    """The requests about one channel, in order.

    Requests are under way at one node (`under_way`), or wait for the next try (`waiting`, perhaps with a
    `timer`), or both. When there are none any more, the route forgets the lane.
    """

    __slots__ = ("accepted", "key", "pipe", "route", "slot", "timer", "under_way", "waiting")

    def __init__(self, route: Route, key: bytes) -> None:
        self.route = route
        self.key = key
        self.slot = slot_of(key)
        self.pipe: Pipe | None = None  # where the requests under way are
        self.under_way = 0
        self.waiting: list[_Routed] = []
        self.accepted = 0  # the highest number of a publish that was kept
        self.timer: asyncio.TimerHandle | None = None

    def add(self, request: _Routed) -> None:
        pipe = self.route.pipe_of(self.slot)
        # Nothing overtakes what waits, and nothing goes to a second node while the first still answers.
        if pipe is None or self.waiting or (self.under_way and self.pipe is not pipe):
            self.waiting.append(request)
            if pipe is None:
                self.route.cluster.want()
        else:
            self._put(request, pipe)

    def _put(self, request: _Routed, pipe: Pipe) -> None:
        self.pipe = pipe
        self.under_way += 1
        request.is_put = True
        pipe.put(request)

    def back(self, request: _Routed) -> None:
        """It was not done there: it is to be asked elsewhere."""
        if not request.is_put:
            return
        request.is_put = False
        self.under_way -= 1
        # It was refused, so it was not done. What had no answer on an earlier connection keeps its number.
        if request.number and not request.doubtful:
            request.number = 0
        self.waiting.append(request)
        self.go_on()

    def done(self, request: _Routed) -> None:
        """Nobody waits for it any more, or it is answered."""
        if request.is_put:
            request.is_put = False
            self.under_way -= 1
            if request.number and not request.future.cancelled() and request.future.exception() is None:
                self.accepted = max(self.accepted, request.number)
        self.go_on()

    def go_on(self) -> None:
        """Ask what waits, if nothing is under way: at once, or later if that was in vain twice."""
        if self.under_way or self.timer is not None:
            return
        # The first redirection is what a moved slot takes, and the second one what an import takes. After
        # that the slot is in between (`TRYAGAIN`), and only time helps.
        turns = min((request.turns for request in self.waiting), default=0)
        if turns < 2:
            self._send_on()
            return
        first, most = _ON
        delay = min(first * 2 ** min(turns - 2, 10), most)
        self.timer = asyncio.get_running_loop().call_later(delay, self._later)

    def _later(self) -> None:
        self.timer = None
        self._send_on()

    def _send_on(self) -> None:
        """Send on the first requests that go to the same node."""
        self.waiting = [request for request in self.waiting if not request.future.done()]
        if not self.waiting:
            self.route.forget(self)
            return
        # Requests come back in the order of the answers, and new ones have been added meanwhile.
        self.waiting.sort(key=lambda request: request.order)
        at = self.waiting[0].ask_at
        cluster = self.route.cluster
        pipe = self.route.pipe_of(self.slot) if at is None else cluster.importing(at).pipe(self.route.name)
        if pipe is None:
            cluster.want()
            return
        while self.waiting and self.waiting[0].ask_at == at:
            request = self.waiting.pop(0)
            request.asks, request.ask_at = at is not None, None
            if request.doubtful and request.number and request.number <= self.accepted:
                fail(request, BrokerError("the channel has moved to another node. It may have been kept"))
            else:
                self._put(request, pipe)


class Route(Asking):
    """Requests to the nodes that have their keys; as a `Pipe`.

    Args:
        cluster: The cluster.
        name: Which pipes of the nodes.
        timeout: Seconds in which each must be answered.
        patient: Whether those seconds start again as long as something comes.
    """

    def __init__(self, cluster: Cluster, name: str, *, timeout: float, patient: bool) -> None:
        super().__init__(cluster, timeout=timeout, patient=patient)
        self.cluster = cluster
        self.name = name
        self._lanes: dict[bytes, _Lane] = {}
        self._orders: Iterator[int] = iter(range(1 << 62))
        cluster.routes.append(self)

    def came(self) -> None:
        """Something has come."""
        self._came_at = self._loop.time()

    def request(self, parts: Sequence[bytes], *, numbered: bool = False) -> Request:
        """Have something asked of the node that has the first key."""
        key = parts[3] if parts[0] == b"EVALSHA" else parts[1]
        # All keys of a channel have the same braces, and so one lane.
        tag = key[: key.index(b"}") + 1]
        lane = self._lanes.get(tag)
        if lane is None:
            lane = self._lanes[tag] = _Lane(self, tag)
        future: asyncio.Future[Any] = self._loop.create_future()
        request = _Routed(parts, future, 0 if numbered else None, lane, next(self._orders))
        lane.add(request)
        return request

    def pipes(self) -> Sequence[Pipe]:
        """Those of the nodes that have slots."""
        return [node.pipe(self.name) for node in self.cluster.primaries()]

    def pipe_of(self, slot: int) -> Pipe | None:
        """That of the node that has a slot."""
        node = self.cluster.owner(slot)
        return None if node is None else node.pipe(self.name)

    def take_back(self, node: Node, *, all: bool) -> None:
        """Take back what waits for a node, and is not to be asked there any more."""

        def is_elsewhere(request: Request) -> bool:
            if not isinstance(request, _Routed):
                return False
            return all or (not request.asks and self.cluster.owner(request.lane.slot) is not node)

        for request in node.pipe(self.name).withdraw(is_elsewhere):
            routed = cast(_Routed, request)
            routed.lane.back(routed)

    def go_on(self) -> None:
        """Ask what has waited for a node."""
        for lane in list(self._lanes.values()):
            lane.go_on()

    def forget(self, lane: _Lane) -> None:
        """Nothing is asked in a lane any more."""
        if self._lanes.get(lane.key) is lane:
            del self._lanes[lane.key]

    def stop(self) -> None:
        """Let nobody wait any longer. The nodes have been stopped."""
        super().stop()
        for lane in list(self._lanes.values()):
            for request in lane.waiting:
                fail(request, BrokerError("the channels were stopped before Redis answered"))
