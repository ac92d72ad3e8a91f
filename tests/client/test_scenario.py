"""The client in Chromium, Firefox and Node over a network that breaks: nothing is lost, or comes twice."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets import Subprotocol
from websockets.sync.client import ClientConnection, connect

from tests.client.runtimes import BROWSERS, InBrowser, InNode, Runtime, until
from tests.client.served import MODULE
from tests.docs.browser import LIMIT, Wire, chromium, wait_for
from tests.docs.firefox import FOUND as FIREFOX

if "CLIENT_TOOLS" not in os.environ:
    pytest.skip("the packages of npm are not here: nox -s client", allow_module_level=True)

ROOT = Path(__file__).parents[2]
RUNTIMES = [
    pytest.param(
        "chromium", marks=pytest.mark.skipif(chromium() is None, reason="no Chromium or Chrome on PATH")
    ),
    pytest.param("firefox", marks=pytest.mark.skipif(FIREFOX is None, reason="no Firefox on PATH")),
    "node",
    "ws",  # the package of that name, with the small module
]

SUBPROTOCOL = Subprotocol("lilya.channels.v1")

# Everything is kept that the page gets: what listeners hear, and what a loop takes.
BEGIN = """(() => {
    globalThis.seen = []; globalThis.looped = []; globalThis.states = []; globalThis.published = [];
    globalThis.failed = [];
    globalThis.client = connect("ADDRESS", {token: "bob", firstWait: 20, longestWait: 300, ...OPTIONS});
    client.on("state", (state) => states.push(state));
    globalThis.room = client.join("room", {history: 10, presence: true});
    const mark = (item) => item.type === "event" ? item.data : item.type;
    for (const type of ["event", "gap", "dropped"]) room.on(type, (item) => seen.push(mark(item)));
    (async () => {
        for await (const item of room) if (item.type !== "presence") looped.push(mark(item));
        looped.push("end");
    })().catch((error) => looped.push(error.code));
    globalThis.say = (...texts) => texts.map((text) => room.publish(text).then(
        (id) => published.push(text), (error) => failed.push(error.code)).length);
    return true;
})()"""
OPEN = "room.state === 'joined' && client.state === 'open'"


class Served:
    """The server in a process of its own, which can be started again at the same port."""

    def __init__(self, module: Path) -> None:
        self.module = module
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "uvicorn", "tests.client.served:app", "--log-level=warning"]
        self.process = subprocess.Popen(
            [*command, f"--port={self.port}", "--timeout-graceful-shutdown=5"],
            cwd=ROOT,
            env={**os.environ, "CLIENT_MODULE": str(self.module)},
            stdin=subprocess.DEVNULL,
        )
        wait_for(self._listens)

    def _listens(self) -> bool:
        assert self.process.poll() is None
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(LIMIT)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


class Witness:
    """Another client, over a network that never breaks."""

    def __init__(self, port: int) -> None:
        self.stack = contextlib.ExitStack()
        self.line: ClientConnection = self.stack.enter_context(
            connect(
                f"ws://127.0.0.1:{port}/?name=ann", subprotocols=[SUBPROTOCOL], proxy=None, open_timeout=LIMIT
            )
        )
        self.keys = 0
        self.seen: list[Any] = []
        self.tell(type="join", channel="room")
        while self.hear()["type"] != "joined":
            pass

    def tell(self, **message: Any) -> None:
        self.line.send(json.dumps(message))

    def hear(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.line.recv(LIMIT))
        if message["type"] == "event":
            self.seen.append(message["data"])
        return message

    def say(self, *texts: Any) -> None:
        """Publish, and wait until all of it is known."""
        for text in texts:
            self.keys += 1
            self.tell(type="publish", channel="room", key=f"witness{self.keys}", data=text)
            while self.hear()["type"] != "published":
                pass

    def until(self, text: Any) -> None:
        while text not in self.seen:
            self.hear()

    def close(self) -> None:
        self.stack.close()


class Network:
    """A server, a witness, and the client behind a wire that can break."""

    def __init__(self, name: str, packed: Path, module: Path) -> None:
        self.name = name
        with contextlib.ExitStack() as stack:
            self.served = Served(module)
            stack.callback(self.served.close)
            self.wire = Wire(self.served.port)
            stack.callback(self.wire.close)
            self.witness = Witness(self.served.port)
            stack.callback(lambda: self.witness.close())  # there may be another one by then
            self.runtime = self._runtime(packed, module)
            stack.callback(self.runtime.close)
            self.stack = stack.pop_all()

    def _runtime(self, packed: Path, module: Path) -> Runtime:
        page = f"http://127.0.0.1:{self.served.port}/"  # it is loaded over a network that never breaks
        if self.name in BROWSERS:
            return InBrowser(self.name, page)
        if self.name == "node":
            return InNode(module)
        return InNode(packed / "node_modules" / "lilya-websockets" / "lilya-websockets.min.js", packed)

    def begin(self, path: str = "/", **options: Any) -> None:
        address = f"ws://{self.wire.address}{path}"
        self.run(BEGIN.replace("ADDRESS", address).replace("OPTIONS", json.dumps(options)))

    def run(self, script: str) -> Any:
        return self.runtime.run(script)

    def until(self, condition: str) -> None:
        until(self.runtime, condition)

    def say(self, *texts: Any) -> None:
        self.run(f"say(...{json.dumps(texts)})")

    def end(self) -> None:
        """Have something said that everybody gets."""
        self.witness.say("end")
        self.witness.until("end")
        self.until("seen.includes('end')")

    def blackout(self) -> None:
        self.wire.open = False
        self.wire.cut()

    def close(self) -> None:
        self.stack.close()


@pytest.fixture
def networks(packed: Path) -> Iterator[Callable[..., Network]]:
    made: list[Network] = []

    def make(name: str, module: Path = MODULE) -> Network:
        made.append(Network(name, packed, module))
        return made[-1]

    yield make
    for network in made:
        network.close()


def talk(network: Network) -> tuple[list[Any], list[Any], list[Any]]:
    """What the client has seen and published, and what there was to be seen, over a network that breaks."""
    witness, wire = network.witness, network.wire
    network.begin()
    network.until(OPEN)
    witness.say("one")
    network.until("seen.includes('one')")

    # The network is gone, and both sides say more than a new client would be given.
    network.blackout()
    network.until("client.state === 'waiting'")
    network.say("from afar", "and more")
    witness.say(*(f"meanwhile {number}" for number in range(60)))
    wire.open = True
    network.until(f"{OPEN} && published.length === 2")

    # What the client says arrives, and it does not hear of it.
    wire.deaf = True
    network.say("once")
    witness.until("once")
    wire.deaf = False
    wire.cut()
    network.until("published.length === 3")

    # What the client says is on its way for so long that the client says it again.
    network.until(OPEN)
    wire.slow = True
    network.say("late")
    wait_for(lambda: wire.late)
    wire.slow = False
    wire.cut()
    witness.until("late")
    wire.deliver()
    network.until("published.length === 4")

    network.end()
    return network.run("seen"), network.run("published"), witness.seen


@pytest.mark.parametrize("name", RUNTIMES)
def test_nothing_is_lost_or_doubled(name: str, networks: Callable[..., Network]) -> None:
    network = networks(name)
    seen, published, wanted = talk(network)
    assert seen == wanted
    assert network.run("looped") == wanted
    assert published == ["from afar", "and more", "once", "late"]
    assert len(wanted) == 66
    assert network.run("failed") == []
    assert network.run("[...room.members.values()].map(({info}) => info.name).sort()") == ["ann", "bob"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("since: position ?? undefined, ", ""),
        ("history: position ? undefined : history", "history: 30, since: undefined"),
    ],
)
def test_planted_fault(old: str, new: str, networks: Callable[..., Network], tmp_path: Path) -> None:
    module = tmp_path / "lilya-websockets.mjs"
    text = MODULE.read_text(encoding="utf-8")
    assert text.count(old) == 1
    module.write_text(text.replace(old, new), encoding="utf-8")
    network = networks("node", module)
    seen, _, wanted = talk(network)
    assert seen != wanted


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_restart_of_the_server_is_told(name: str, networks: Callable[..., Network]) -> None:
    """Channels in memory forget what was said. What is not sent yet is not lost."""
    network = networks(name)
    network.begin()
    network.until(OPEN)
    network.witness.say("before")
    network.until("seen.includes('before')")
    network.witness.close()
    network.served.stop()
    network.until("client.state === 'waiting'")
    network.say("after")
    network.served.start()
    network.witness = Witness(network.served.port)
    network.until("published.includes('after')")
    network.end()
    assert network.run("seen") == ["before", "gap", "after", "end"]
    assert network.run("looped") == ["before", "gap", "after", "end"]
    # Node 20's own class says 1006 where the server ends the connection right behind its close frame.
    wanted = {1006, 1012} if name == "node" else {1012}
    assert wanted & set(network.run("states.map(({code}) => code)"))


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_connection_that_is_silently_dead(name: str, networks: Callable[..., Network]) -> None:
    """Nobody closes it. The client finds out, because nobody answers its ping."""
    network = networks(name)
    network.begin(heartbeat=200, timeout=300)
    network.until(OPEN)
    network.witness.say("one")
    network.until("seen.includes('one')")
    network.wire.deaf = network.wire.slow = True
    network.say("into the void")
    network.witness.say("unheard")
    network.until("states.some(({reason}) => reason === 'no answer to a ping')")
    network.wire.deaf = network.wire.slow = False
    network.wire.deliver()
    network.until("published.includes('into the void')")
    network.end()
    assert network.run("seen") == network.witness.seen
    assert network.run("seen").count("into the void") == 1


COUNTS = (430, 462, 377)  # messages that there are to be seen, by seed


@pytest.mark.parametrize("seed", range(len(COUNTS)))
@pytest.mark.parametrize("name", RUNTIMES)
def test_random_faults(name: str, seed: int, networks: Callable[..., Network]) -> None:
    """Both sides publish all the time, while the network breaks 20 times in one way or another."""
    network, faults = networks(name), random.Random(seed)
    witness, wire = network.witness, network.wire
    network.begin(heartbeat=1000, timeout=5000)
    network.until(OPEN)
    said = heard = 0
    for _ in range(20):
        for _ in range(faults.randrange(1, 4)):
            texts = [f"bob {said + each}" for each in range(faults.randrange(1, 6))]
            said += len(texts)
            network.say(*texts)
            witness.say(*(f"ann {heard + each}" for each in range(faults.randrange(1, 12))))
            heard = sum(str(text).startswith("ann") for text in witness.seen)
        kind = faults.choice(["cut", "blackout", "deaf", "slow", "dead"])
        if kind == "blackout":
            network.blackout()
            witness.say(f"ann {heard}")
            wire.open = True
        elif kind == "deaf":
            wire.deaf = True
            network.say(f"bob {said}")
            witness.say(f"ann {heard}")
            wire.deaf = False
            wire.cut()
            said += 1
        elif kind == "slow":
            wire.slow = True
            network.say(f"bob {said}")
            said += 1
            network.until("client.state !== 'open' || client.queued > 0")
            wire.slow = False
            wire.cut()
            wire.deliver()
        elif kind == "dead":
            wire.deaf = wire.slow = True
            network.until("client.state !== 'open'")
            wire.deaf = wire.slow = False
            wire.deliver()
        else:
            wire.cut()
        heard = sum(str(text).startswith("ann") for text in witness.seen)
        if faults.random() < 0.5:
            network.until("client.state === 'open'")
    network.say("bob ends")
    network.until("client.queued === 0")
    network.end()
    seen = network.run("seen")
    assert seen == witness.seen
    assert network.run("looped") == seen
    bob = [text for text in seen if text.startswith("bob")]
    assert network.run("failed") == []
    assert bob == [*(f"bob {number}" for number in range(said)), "bob ends"]
    assert network.run("published") == bob
    assert network.run("failed") == []
    assert len(seen) == COUNTS[seed]
    assert len(network.run("states.filter(({state}) => state === 'open')")) > 5


STOPS = (1000, 1002, 1003, 1007, 1008, 1009, 1010, 3000, 4001)
WAITS = (1001, 1011, 1012, 1013, 1014, 3008)


@pytest.mark.parametrize("name", RUNTIMES)
def test_close_codes(name: str, networks: Callable[..., Network]) -> None:
    """The server closes with each of them, and once before it accepts."""
    network = networks(name)
    for code in (*STOPS, *WAITS):
        network.begin(firstWait=60_000, longestWait=60_000)
        network.until(OPEN)
        network.run(f"void client.request({{close: {code}}}).catch(() => 0)")
        network.until("client.state !== 'open'")
        told = network.run("states.at(-1)")
        wanted = "closed" if code in STOPS else "waiting"
        assert (told["state"], told["code"], told["reason"]) == (wanted, code, "asked for")
        network.run("client.close()")
    network.begin("/refused")
    network.until("states.some(({state, code}) => state === 'waiting' && code === 1006)")
    network.run("client.close()")


@pytest.mark.parametrize("name", RUNTIMES)
def test_refusals(name: str, networks: Callable[..., Network]) -> None:
    """What the server refuses or ends, and what is lost, is told to whoever has asked for it."""
    network = networks(name)
    network.begin(maxSize=1_000_000)
    network.until(OPEN)

    def fails(script: str) -> str:
        code: str = network.run(f"({script}).then(() => 'done', (error) => error.code)")
        return code

    assert fails("new Promise((_, reject) => client.join('secret').on('left', reject))") == "forbidden"
    assert fails("client.request({refuse: 'why'})") == "no"
    assert fails("room.publish('x'.repeat(70_000))") == "too_large"
    assert fails("client.request('x'.repeat(70_000))") == "too_large"
    assert fails("client.request({wait: true}, {timeout: 50})") == "timeout"
    assert network.run("client.request({any: ['thing', 1, null]})") == {"any": ["thing", 1, None]}
    network.run("void (globalThis.asked = client.request({wait: true}).catch((error) => error.code))")
    network.run("client.request(1)")  # behind it: it was sent
    network.wire.cut()
    assert network.run("asked") == "lost"
    network.until(OPEN)
    network.run("void client.request({remove: 'room'}).catch(() => 0)")
    network.until("looped.length > 0")
    assert network.run("looped") == ["left"]
    assert fails("room.publish('more')") == "left"
    assert network.run("client.state") == "open"
