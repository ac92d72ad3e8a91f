"""A Redis cluster: which node has which slot, how a change is noticed, and how a request gets to its node.

The rules of this file:

- There is a link to each primary. When a node no longer has any slots, its link is closed, and the requests
  that wait for it go to other nodes.
- Anything that suggests that a slot has moved (`MOVED`, an outage, a subscription that the server has ended)
  makes the cluster ask the nodes for all slots. It asks the node that was named first, and goes on until each
  slot has a node that answers.
- The requests about one channel form a lane, and go to one node at a time. When a node redirects a request,
  the request waits until that node has answered all other requests of the lane that were sent to it. It is
  sent on before all later ones. So the numbers of publishes rise in each channel, whichever nodes have it.
- A publish that was redirected was not done, and gets a new number. A publish that got no answer before may
  have been done, and keeps its number. If a publish with a higher number was stored since then, the server
  can no longer tell from the old number whether this one was done. Then it fails, and the error says so.

An example of the last two rules: the publishes 1, 2 and 3 are sent to node A, and the slot moves to node B
after A has stored 1. A redirects 2 and 3. They go to B as 4 and 5, in this order. If 3 went to B first, B
would store it, and take 2, with its lower number, for an event that it has already.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

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
from ._link import Asking, Link, Pipe, Request, ask, fail, new_connection, reason, stopped
from ._listening import Listener
from ._places import Address, Place
from ._scripts import Script

__all__ = ["Cluster", "Node", "Route"]

# Ranges of slots, and the addresses of the primary and the replicas that have them.
Slots = list[tuple[int, int, list[Address]]]

logger: Final = logging.getLogger("lilya.websockets")

# The seconds that a node has to answer where the slots are.
_PATIENCE: Final = 1.0
# The seconds before the nodes are asked again: the first time, and at most.
_AGAIN: Final = (0.05, 1.0)
# The seconds before a request that was redirected twice is sent on again: the first time, and at most.
_ON: Final = (0.01, 0.5)
# The seconds to keep the link to a node without slots after an `ASK` has sent a request there.
_IDLE: Final = 30.0


class View(NamedTuple):
    """What a node knows of the cluster."""

    epoch: int  # the cluster's
    slots: Slots
    ids: frozenset[bytes]  # of the nodes that have slots


@dataclass(eq=False)  # by identity: nodes are keys
class Node:
    """One server: its link, with three lines."""

    link: Link
    publishing: Pipe
    asking: Pipe
    listener: Listener
    asked_at: float = 0.0

    async def stop(self) -> None:
        """End the lines. Requests without an answer stay in the pipes."""
        await self.link.stop()
        self.listener.stop()

    def pipe(self, name: str) -> Pipe:
        """The pipe with this name."""
        return self.publishing if name == "publishing" else self.asking


class Cluster:
    """The nodes of a cluster.

    Args:
        place: The addresses of some nodes, to start with.
        make: Creates a node for a link.
        prepare: Checks that a new connection can be used.
        scripts: The scripts to load on each node.
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
        self._others: set[Address] = set()  # the replicas, which can also be asked where the slots are
        # The cluster's epoch in the newest view. The cluster raises it with each failover. A node that is cut
        # off from the others does not hear of it, and has an older view, which must not replace a newer one.
        self._epoch = -1
        self._ids: frozenset[bytes] = frozenset()  # of the nodes in that view
        self._first: Address | None = None  # the node to ask first
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.routes: list[Route] = []
        self.settled: Callable[[], None] = lambda: None
        self.lost: Callable[[], None] = lambda: None

    # For the routes and the feed

    @property
    def down(self) -> set[str]:
        """The names of the lines that are in an outage."""
        return {line for node in self.nodes.values() for line in node.link.down}

    def owner(self, slot: int) -> Node | None:
        """The node that has a slot."""
        return self._owners[slot]

    def listener(self, slot: int) -> Listener | None:
        """The listener for the channels of a slot."""
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
            # Start the first line even if nothing is published: it is the line that connects again after an
            # outage, and the other lines wait for it.
            node.publishing.line.start()
        return node

    def importing(self, address: Address) -> Node:
        """The node that is importing a slot. `_settle` keeps it for a while, also if it has no slots yet."""
        node = self.node_at(address)
        node.asked_at = self._loop.time()
        return node

    def astray(self, slot: int, error: ResponseError | None) -> None:
        """Find the new node of a slot that has moved."""
        if isinstance(error, MovedError):
            # The answer names the new node. Send requests there at once, and ask for all slots meanwhile.
            address = self._address(error)
            self._first = address
            self._owners[slot] = self.node_at(address)
        self.want()

    def want(self) -> None:
        """Have the nodes asked where the slots are."""
        self._wanted.set()

    def lose(self, error: BaseException) -> None:
        """Drop all connections."""
        for node in list(self.nodes.values()):
            node.link.lose(error)

    # Starting and stopping

    async def start(self) -> None:
        """Find the nodes, and check that one of them can be used."""
        await self._refresh()
        node = self.primaries()[0]
        # So that a wrong password, or a missing right, is raised here and is not an outage to retry.
        connection = await node.link.connect("publishing")
        await connection.disconnect()
        for node in self.primaries():
            node.publishing.line.start()
        self._see_whether_it_is_ready()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop all nodes."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for node in self.nodes.values():
            await node.stop()
            node.publishing.stop()
            node.asking.stop()

    async def _run(self) -> None:
        """Ask where the slots are on each `want`, until all slots have a node that answers."""
        first, most = _AGAIN
        delay = first
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                try:
                    await self._refresh()
                finally:
                    # Also if no node has answered: a `MOVED` may have changed an owner.
                    await self._settle()
            except Exception as error:  # any exception: without this task, the outage would never end
                self.reason = reason(error)
            # Wait even after a success. During a migration, each redirected request wants a new view.
            await asyncio.sleep(random.uniform(delay / 2, delay))
            # The delay starts small again only when all is well, and nobody has asked again meanwhile.
            if self.ready.is_set() and not self._wanted.is_set():
                delay = first
            else:
                self._wanted.set()
                delay = min(2 * delay, most)

    # Where the slots are

    async def _refresh(self) -> None:
        """Ask the nodes in turn, until one has a view that is not older than the last one."""
        # In random order, so that not all processes ask the same node.
        others = [*{*self._place.addresses, *self.nodes, *self._others}]
        random.shuffle(others)
        if self._first is not None:
            others.insert(0, self._first)
            self._first = None
        best: tuple[tuple[bool, int], View] | None = None
        reasons = []
        for address in dict.fromkeys(others):
            try:
                with anyio.fail_after(_PATIENCE):
                    view = await self._ask(address)
            except Exception as error:  # also if the answer cannot be read
                reasons.append(f"{address[0]}:{address[1]}: {reason(error)}")
                continue
            # A node that was removed from this cluster, and is now a part of another one, knows none of these
            # nodes. The epochs of two clusters say nothing about each other.
            is_ours = not self._ids or not self._ids.isdisjoint(view.ids)
            rank = is_ours, view.epoch
            if best is None or rank > best[0]:
                best = rank, view
            if rank >= (True, self._epoch):
                break
            # The view is older than the last one, so this node is cut off; or it is of another cluster.
            # Perhaps another node knows more. If none does, take the best of these views. An old view is
            # better than none, and a cluster that was set up anew has other nodes at the same addresses.
        if best is None:
            raise RedisError(f"no node of the cluster answers ({'; '.join(reasons)})")
        _, view = best
        self._epoch, self._ids = view.epoch, view.ids
        self._take(view.slots)

    async def _ask(self, address: Address) -> View:
        """A node's view of the cluster."""
        host, port = address
        # Use a connection of its own. On the lines, this would wait behind requests, and these may be the
        # ones that cannot go on without the answer.
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
        return View(
            int(epoch or 0),
            [
                (first, last, [(_host(name, host), int(port)) for name, port, *_ in servers])
                for first, last, *servers in slots
            ],
            frozenset(id for _, _, *servers in slots for _, _, id, *_ in servers),
        )

    def _take(self, slots: Slots) -> None:
        """Use a view of the cluster from now on."""
        owners: list[Node | None] = [None] * SLOTS
        self._others = set()
        for first, last, addresses in slots:
            owners[first : last + 1] = [self.node_at(addresses[0])] * (last + 1 - first)
            self._others.update(addresses[1:])
        if owners != self._owners:
            self._owners = owners
            self.lost()  # the new node of a slot may not have all of its data

    def _address(self, error: AskError) -> Address:
        """The address in a redirection. Nodes that do not know their own host name leave it out."""
        return _host(error.host, self._place.addresses[0][0]), int(error.port)

    def asked_address(self, error: AskError) -> Address:
        """The address in an `ASK`: the node that is importing the slot."""
        return self._address(error)

    async def _settle(self) -> None:
        """Move requests and subscriptions to the nodes that have the slots now; stop nodes without slots."""
        # Take back the requests that were not sent yet. Those that were sent get their answers where they
        # are.
        for node in list(self.nodes.values()):
            for route in self.routes:
                route.take_back(node, all=False)
        self.settled()
        owners = self.primaries()
        for address, node in list(self.nodes.items()):
            # A node that is importing its first slot has none yet, and `ASK` may have sent requests there. To
            # stop it would lose their answers.
            if node not in owners and node.asked_at < self._loop.time() - _IDLE:
                del self.nodes[address]
                await node.stop()
                if node.link.down:
                    logger.warning(
                        "Redis at %s has no slots any more: its part is elsewhere", node.link.where
                    )
                # The lines have ended, so requests without an answer are in the queue again, marked as
                # doubtful.
                for route in self.routes:
                    route.take_back(node, all=True)
                node.publishing.stop()
                node.asking.stop()
        for route in self.routes:
            route.go_on()
        self._see_whether_it_is_ready()

    def _changed(self) -> None:
        """React to the outage of a node: to its beginning, to each failed attempt to connect, to its end."""
        self.lost()
        self._see_whether_it_is_ready()
        if not self.ready.is_set():
            self.want()

    def _see_whether_it_is_ready(self) -> None:
        """Set or renew `ready`: the cluster is ready if each slot has a node, and none of these is down."""
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
    """The host that a node has named. Without a name, it is the host of the node that was asked."""
    text = name.decode() if isinstance(name, bytes) else name
    return text if text and text != "?" else asked


class _Routed(Request):
    """A request that can be redirected from node to node."""

    __slots__ = ("ask_at", "asks", "is_put", "lane", "order", "turns")

    def __init__(
        self, parts: Sequence[bytes], future: asyncio.Future[Any], number: int | None, lane: _Lane, order: int
    ) -> None:
        super().__init__(parts, future, number)
        self.lane = lane
        self.order = order  # among all requests of the route, in the order in which callers made them
        self.turns = 0  # how often it was redirected
        self.asks = False
        self.ask_at: Address | None = None  # the node to which an `ASK` sends it, once
        self.is_put = False  # it is in a pipe
        future.add_done_callback(self._done)

    def redirected(self, error: ResponseError) -> bool:
        cluster = self.lane.route.cluster
        # `MOVED`: the slot has another node now. `ASK`: the slot is being moved, and the old node no longer
        # has the keys of this request. It keeps the slot until the last key has moved, so only this request
        # goes to the new node. Otherwise (`TRYAGAIN`, or the cluster is in a failover), ask for all slots and
        # try again. In redis-py, `MovedError` is a subclass of `AskError`.
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

    Some are under way at one node (`under_way` is their number). Others wait, in `waiting`, until these are
    answered, until the slot has a node, or until the `timer` fires. A lane without requests is forgotten by
    its route.

    Without lanes, requests about a slot that moves could overtake each other: one waits at the old node, and
    a later one goes to the new node at once. For publishes, the server would then drop the first, because its
    number is the lower one.
    """

    __slots__ = ("accepted", "key", "pipe", "route", "slot", "timer", "under_way", "waiting")

    def __init__(self, route: Route, key: bytes) -> None:
        self.route = route
        self.key = key
        self.slot = slot_of(key)
        self.pipe: Pipe | None = None  # the one with the requests under way
        self.under_way = 0
        self.waiting: list[_Routed] = []
        self.accepted = 0  # the highest number of a publish that was stored
        self.timer: asyncio.TimerHandle | None = None

    def add(self, request: _Routed) -> None:
        """Send a new request, or let it wait."""
        pipe = self.route.pipe_of(self.slot)
        # A request must not overtake those that wait. And it must not go to a second node while the first has
        # still to answer: the first may redirect a request that has to come before this one.
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
        """Take back a request that a node has redirected, or that was not sent yet."""
        if not request.is_put:
            return  # the caller has given up, so it is no longer counted
        request.is_put = False
        self.under_way -= 1
        # A redirected request was not done, so it gets a new number when it is sent. But a request that got
        # no answer on an earlier connection may have been done then. It keeps its number, by which the server
        # recognizes it.
        if request.number and not request.doubtful:
            request.number = 0
        self.waiting.append(request)
        self.go_on()

    def done(self, request: _Routed) -> None:
        """Note that a request was answered, or that its caller has given up."""
        if request.is_put:
            request.is_put = False
            self.under_way -= 1
            if request.number and not request.future.cancelled() and request.future.exception() is None:
                self.accepted = max(self.accepted, request.number)
        self.go_on()

    def go_on(self) -> None:
        """Send the waiting requests if none is under way: at once, or later if they were redirected twice."""
        if self.under_way or self.timer is not None:
            return
        # Two redirections are normal: a `MOVED` to the new node, and an `ASK` if the slot is being moved
        # again. After that, the keys of the channel are on their way between two nodes (`TRYAGAIN`), and only
        # waiting helps. Without a delay, the request would go back and forth as fast as the nodes answer.
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
        """Send the waiting requests, from the first one up to the first that goes to another node."""
        self.waiting = [request for request in self.waiting if not request.future.done()]
        if not self.waiting:
            self.route.forget(self)
            return
        # Redirected requests were appended behind new ones. Restore the order in which callers made them.
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
                # A higher number was stored since this was sent. With its old number, the server would take
                # it for stored even if it is not. With a new number, it could be stored twice. Only the
                # caller can decide what to do.
                fail(request, BrokerError("the channel has moved to another node. It may have been kept"))
            else:
                self._put(request, pipe)


class Route(Asking):
    """Sends each request to the node that has its keys. For callers, it is what a `Pipe` is for one server.

    Args:
        cluster: The cluster.
        name: The name of the pipes to use, one at each node.
        timeout: The seconds in which a request must be answered.
        patient: Whether these seconds start again whenever data arrives.
    """

    def __init__(self, cluster: Cluster, name: str, *, timeout: float, patient: bool) -> None:
        super().__init__(cluster, timeout=timeout, patient=patient)
        self.cluster = cluster
        self.name = name
        self._lanes: dict[bytes, _Lane] = {}
        self._orders: Iterator[int] = iter(range(1 << 62))
        cluster.routes.append(self)

    def came(self) -> None:
        """Note that data has arrived from one of the nodes."""
        self._came_at = self._loop.time()

    def request(self, parts: Sequence[bytes], *, numbered: bool = False) -> Request:
        """Send a command to the node that has its first key."""
        key = parts[3] if parts[0] == b"EVALSHA" else parts[1]
        # All keys of a channel begin with the same text in braces, so this text identifies the lane.
        tag = key[: key.index(b"}") + 1]
        lane = self._lanes.get(tag)
        if lane is None:
            lane = self._lanes[tag] = _Lane(self, tag)
        future: asyncio.Future[Any] = self._loop.create_future()
        request = _Routed(parts, future, 0 if numbered else None, lane, next(self._orders))
        lane.add(request)
        return request

    def pipes(self) -> Sequence[Pipe]:
        """The pipes of the nodes that have slots."""
        return [node.pipe(self.name) for node in self.cluster.primaries()]

    def pipe_of(self, slot: int) -> Pipe | None:
        """The pipe of the node that has a slot."""
        node = self.cluster.owner(slot)
        return None if node is None else node.pipe(self.name)

    def take_back(self, node: Node, *, all: bool) -> None:
        """Take back the requests that wait for a node: all, or those whose slot is now at another node."""

        def is_elsewhere(request: Request) -> bool:
            # A request that goes there because of an `ASK` stays, although the slot is not there yet.
            if not isinstance(request, _Routed):
                return False
            return all or (not request.asks and self.cluster.owner(request.lane.slot) is not node)

        for request in node.pipe(self.name).withdraw(is_elsewhere):
            routed = cast(_Routed, request)
            routed.lane.back(routed)

    def go_on(self) -> None:
        """Send the requests that have waited for a node."""
        for lane in list(self._lanes.values()):
            lane.go_on()

    def forget(self, lane: _Lane) -> None:
        """Remove a lane that has no requests."""
        if self._lanes.get(lane.key) is lane:
            del self._lanes[lane.key]

    def stop(self) -> None:
        """Fail the requests that wait. The nodes have been stopped before."""
        super().stop()
        for lane in list(self._lanes.values()):
            for request in lane.waiting:
                fail(request, stopped(request))
