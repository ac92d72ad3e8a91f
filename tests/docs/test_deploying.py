"""The page *Deploying*: what it says of workers, machines and a load balancer is so."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightkube import codecs
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from lilya.websockets.channels import SUBPROTOCOL
from tests.docs.browser import LIMIT, wait_for
from tests.docs.nginx import configured, needs_nginx, nginx
from tests.lilya_websockets.redis_server import NO_SERVER, RedisServer, free_port, redis_binary

pytestmark = pytest.mark.page(
    "docs/guides/deploying.md", "The tests run the commands and the nginx configuration"
)

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guides" / "deploying.md").read_text(encoding="utf-8")

ROOM = "room:lobby"  # of the chat

needs_redis = pytest.mark.skipif(redis_binary() is None, reason=NO_SERVER)

Run = Callable[..., "Server"]


class Server:
    """A server, and everything that it has started."""

    def __init__(self, arguments: list[str], port: int, server: str = "uvicorn", **variables: str) -> None:
        self.port = port
        where = ["--port", str(port)] if server == "uvicorn" else ["--bind", f"127.0.0.1:{port}"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", server, *arguments, *where, "--log-level", "critical"],
            cwd=ROOT,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a group of its own, with its workers
        )

    def stop(self) -> None:
        """Tell it to stop, as whoever deploys it does."""
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> None:
        """Wait until it has ended, with its workers."""
        self.process.wait(LIMIT)
        wait_for(lambda: not group_lives(self.process.pid))

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def group_lives(group: int) -> bool:
    """Whether a process of a group runs; one that has ended and was not collected does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of = stat.read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state != "Z":
                return True
    return False


@pytest.fixture
def run() -> Iterator[Run]:
    """Starts servers, and ends them after the test."""
    running: list[Server] = []

    def start(*arguments: str, server: str = "uvicorn", **variables: str) -> Server:
        running.append(Server([*arguments], free_port(), server, **variables))
        return running[-1]

    yield start
    for server in running:
        server.kill()


@pytest.fixture
def redis() -> Iterator[str]:
    with RedisServer() as server:
        yield server.url


@contextlib.contextmanager
def at(
    port: int, path: str = "/", subprotocols: list[Subprotocol] | None = None
) -> Iterator[ClientConnection]:
    """A connection to a server that may not be there yet."""
    with contextlib.ExitStack() as stack:

        def found() -> ClientConnection | None:
            with contextlib.suppress(OSError, WebSocketException):
                return stack.enter_context(
                    connect(
                        f"ws://127.0.0.1:{port}{path}",
                        subprotocols=subprotocols,
                        proxy=None,
                        ping_interval=None,
                    )
                )
            return None

        yield wait_for(found)


@contextlib.contextmanager
def at_both_workers(port: int) -> Iterator[dict[int, ClientConnection]]:
    """A connection to each of two workers behind one port, by the worker."""
    with contextlib.ExitStack() as stack:
        found: dict[int, ClientConnection] = {}

        def both() -> bool:
            with contextlib.ExitStack() as mine:
                connection = mine.enter_context(at(port))
                worker = json.loads(connection.recv(LIMIT))["worker"]
                if worker not in found:
                    found[worker] = connection
                    stack.push(mine.pop_all())
            return len(found) == 2

        wait_for(both)
        yield found


def end_of(connection: ClientConnection) -> int | None:
    """The code by which a connection ends; `None` for none."""
    try:
        while True:
            connection.recv(LIMIT)
    except ConnectionClosed as error:
        return error.rcvd.code if error.rcvd else None


def shown_command(server: str = "uvicorn") -> tuple[list[str], list[str]]:
    """The arguments of a server, and the names of the variables, in the command on the page."""
    found = re.search(rf"^((?:\w+=\S+ )+){server} (.*--workers.*)$", PAGE, re.MULTILINE)
    assert found
    return found[2].split(), re.findall(r"(\w+)=", found[1])


@needs_redis
@pytest.mark.page("docs/guides/deploying.md", "If a worker crashes")
def test_workers_hear_each_other_and_stop_in_an_orderly_way(run: Run, redis: str) -> None:
    arguments, variables = shown_command()
    assert variables == ["CHANNELS_URL"]
    server = run(*arguments, CHANNELS_URL=redis)
    with at_both_workers(server.port) as workers:
        (crashing, one), (running, _) = workers.items()
        os.kill(crashing, signal.SIGKILL)
        assert end_of(one) is None
    with at_both_workers(server.port) as workers:
        assert running in workers
        assert crashing not in workers
        one, other = workers.values()
        for speaker, text in ((one, "Can you hear me?"), (other, "I can.")):
            speaker.send(text)
            assert [one.recv(LIMIT), other.recv(LIMIT)] == [text, text]
        server.stop()
        assert [end_of(one), end_of(other)] == [1012, 1012]
    server.ended()


@needs_redis
@pytest.mark.page("docs/guides/deploying.md", "gunicorn can run the workers instead")
def test_workers_of_gunicorn(run: Run, redis: str) -> None:
    arguments, variables = shown_command("gunicorn")
    assert variables == ["CHANNELS_URL"]
    server = run(*arguments, server="gunicorn", CHANNELS_URL=redis)
    with at_both_workers(server.port) as workers:
        one, other = workers.values()
        one.send("Can you hear me?")
        assert [one.recv(LIMIT), other.recv(LIMIT)] == ["Can you hear me?"] * 2
        server.stop()
        assert [end_of(one), end_of(other)] == [1012, 1012]
    server.ended()


@pytest.mark.page("docs/guides/deploying.md", "Without the variable")
def test_without_redis_each_worker_has_a_room_of_its_own(run: Run) -> None:
    arguments, _ = shown_command()
    server = run(arguments[0], WEB_CONCURRENCY="2")
    with at_both_workers(server.port) as workers:
        one, other = workers.values()
        one.send("Can you hear me?")
        assert one.recv(LIMIT) == "Can you hear me?"
        other.send("Is anybody here?")
        assert other.recv(LIMIT) == "Is anybody here?"


def heard(connection: ClientConnection, count: int) -> list[str]:
    """What the next messages of the chat room say."""
    return [event["data"]["text"] for event in itertools.islice(events(connection), count)]


def events(connection: ClientConnection) -> Iterator[dict[str, Any]]:
    """The events of the chat room, as they come."""
    while True:
        message = json.loads(connection.recv(LIMIT))
        assert message["type"] not in ("gap", "dropped", "error", "left"), message
        if message["type"] == "event":
            yield message


def ticket(port: int, name: str) -> str:
    """What the chat room signs for a name, as soon as it is there."""

    def ask() -> str:
        with (
            contextlib.suppress(OSError),
            contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)) as connection,
        ):
            connection.request("POST", "/ticket", name)
            answer = connection.getresponse()
            assert answer.status == 200
            return str(answer.read(), "ascii")
        return ""

    signed: str = wait_for(ask)
    return signed


def say(connection: ClientConnection, text: str) -> None:
    connection.send(json.dumps({"type": "publish", "channel": ROOM, "key": text, "data": text}))


@contextlib.contextmanager
def in_room(port: int, signed: str, **asked: Any) -> Iterator[tuple[ClientConnection, dict[str, Any]]]:
    """A connection that has joined the chat room, and the answer to its join."""
    with at(port, f"/room?ticket={signed}", subprotocols=[Subprotocol(SUBPROTOCOL)]) as connection:
        connection.send(json.dumps({"type": "join", "channel": ROOM, **asked}))
        joined = json.loads(connection.recv(LIMIT))
        assert joined["type"] == "joined", joined
        yield connection, joined


@needs_redis
@pytest.mark.page("docs/guides/deploying.md", "A client that receives 1012")
def test_who_comes_back_at_another_machine_misses_nothing(run: Run, redis: str) -> None:
    variables = {"CHANNELS_URL": redis, "SECRET_KEY": "for this test"}
    one, other = (run("docs_src.guides.chat.chat:app", **variables) for _ in range(2))
    ticket(other.port, "nobody")  # it is there, and a ticket does not wait for it until it expires
    with in_room(one.port, ticket(one.port, "ann")) as (ann, _):
        with in_room(one.port, ticket(one.port, "bob")) as (bob, _):
            say(ann, "first")
            first = next(events(bob))
        for number in range(5):
            say(ann, f"meanwhile {number}")
        assert heard(ann, 6)[-1] == "meanwhile 4"
        signed = ticket(one.port, "bob")  # by the first
        with in_room(other.port, signed, since=first["id"], presence=True) as (bob, joined):
            assert sorted(member["info"] for member in joined["members"]) == ["ann", "bob"]
            say(bob, "back")
            assert heard(bob, 6) == [*(f"meanwhile {number}" for number in range(5)), "back"]
            assert heard(ann, 1) == ["back"]


@needs_redis
@needs_nginx
@pytest.mark.parametrize(("interval", "ends"), [("0.3", False), ("60", True)])
@pytest.mark.page("docs/guides/deploying.md", "| Time-outs |")
def test_a_load_balancer(run: Run, redis: str, tmp_path: Path, interval: str, ends: bool) -> None:
    """It spreads the connections, and drops those that are silent; pings are no silence."""
    arguments, _ = shown_command()
    servers = [run(arguments[0], "--ws-ping-interval", interval, CHANNELS_URL=redis) for _ in range(2)]
    for server in servers:
        with at(server.port):
            pass
    with (
        nginx(
            tmp_path,
            [server.port for server in servers],
            replaced={"proxy_read_timeout 60s": "proxy_read_timeout 1s"},
        ) as port,
        at_both_workers(port) as workers,
    ):
        one, other = workers.values()
        one.send("Can you hear me?")
        assert [one.recv(LIMIT), other.recv(LIMIT)] == ["Can you hear me?"] * 2
        if ends:
            assert end_of(other) is None
        else:
            with pytest.raises(TimeoutError):
                other.recv(3)  # three times the time-out
            one.send("Still there?")
            assert other.recv(LIMIT) == "Still there?"


# Who says where a request comes from

SEEN = ("tests.docs.seen_app:app", "--lifespan", "off")
# What a client claims that is not so. Its own address is CLIENT, and it is an address of loopback, too.
CLAIMS = {"X-Forwarded-For": "10.0.0.1", "X-Forwarded-Proto": "https"}
CLIENT = "127.0.0.2"
needs_loopback = pytest.mark.skipif(
    sys.platform != "linux", reason="127.0.0.2 is an address of the machine on Linux only"
)


def seen_by_websocket(port: int, context: ssl.SSLContext | None = None) -> dict[str, Any]:
    """What the app sees of a WebSocket from CLIENT."""
    with connect(
        f"{'wss' if context else 'ws'}://127.0.0.1:{port}/",
        proxy=None,
        ssl=context,
        source_address=(CLIENT, 0),
        additional_headers=CLAIMS,
    ) as connection:
        seen: dict[str, Any] = json.loads(connection.recv(LIMIT))
        return seen


def seen_by_request(port: int, **headers: str) -> dict[str, Any]:
    """What the app sees of an ordinary request from CLIENT."""
    connection = http.client.HTTPConnection("127.0.0.1", port, LIMIT, source_address=(CLIENT, 0))
    with contextlib.closing(connection):
        connection.request("GET", "/", headers={**CLAIMS, **headers})
        seen: dict[str, Any] = json.loads(connection.getresponse().read())
        return seen


def sees(seen: dict[str, Any]) -> tuple[str, str]:
    return seen["client"][0], seen["scheme"]


def started(server: Server) -> Server:
    with at(server.port):
        return server


@needs_nginx
@needs_loopback
@pytest.mark.parametrize("protocol", ["websockets-sansio", "lilya.websockets.uvicorn:WebSocketProtocol"])
@pytest.mark.page("docs/guides/deploying.md", "A client can send headers")
def test_the_proxy_says_who_the_client_is(run: Run, tmp_path: Path, protocol: str) -> None:
    """With the lines of the page no client can choose its address or scheme."""
    server = started(run(*SEEN, "--ws", protocol))
    with nginx(tmp_path, [server.port]) as port:
        assert sees(seen_by_websocket(port)) == (CLIENT, "ws")
        assert sees(seen_by_request(port)) == (CLIENT, "http")
        names = [name for name, _ in seen_by_request(port, Upgrade="h2c", Connection="Upgrade")["headers"]]
        assert "upgrade" not in names
    # The planted fault: without these lines, and with every `Upgrade` handed on, each claim is believed.
    lines = {
        "proxy_set_header X-Forwarded-For $remote_addr;": "",
        "proxy_set_header X-Forwarded-Proto $scheme;": "",
        "proxy_set_header Upgrade $upgrade;": "proxy_set_header Upgrade $http_upgrade;",
    }
    with nginx(tmp_path, [server.port], replaced=lines) as port:
        assert sees(seen_by_websocket(port)) == ("10.0.0.1", "wss")
        assert sees(seen_by_request(port)) == ("10.0.0.1", "https")
        seen = seen_by_request(port, Upgrade="h2c", Connection="Upgrade")
        assert ["upgrade", "h2c"] in seen["headers"]


@needs_nginx
@needs_loopback
@pytest.mark.page("docs/guides/deploying.md", "* `X-Forwarded-Proto $scheme`")
def test_the_proxy_says_that_there_is_tls(run: Run, tmp_path: Path) -> None:
    server = started(run(*SEEN))
    file = ROOT / "tests" / "lilya_websockets" / "localhost.pem"
    context = ssl.create_default_context(cafile=str(file))
    tls = f"listen 8000 ssl; ssl_certificate {file}; ssl_certificate_key {file};"
    with nginx(tmp_path, [server.port], replaced={"listen 8000;": tls}) as port:
        assert sees(seen_by_websocket(port, context)) == (CLIENT, "wss")


@needs_loopback
@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ((), (CLIENT, "ws")),  # the default trusts 127.0.0.1 and ::1 only
        (("--forwarded-allow-ips", CLIENT), ("10.0.0.1", "wss")),
        (("--forwarded-allow-ips", "127.0.0.0/8"), ("10.0.0.1", "wss")),
        (("--forwarded-allow-ips", "*"), ("10.0.0.1", "wss")),
        (("--forwarded-allow-ips", CLIENT, "--no-proxy-headers"), (CLIENT, "ws")),
    ],
)
@pytest.mark.page("docs/guides/deploying.md", "| option of uvicorn |")
def test_whom_uvicorn_believes(run: Run, options: tuple[str, ...], seen: tuple[str, str]) -> None:
    """Who reaches uvicorn directly, from an address that it trusts, chooses its own."""
    server = started(run(*SEEN, *options))
    assert sees(seen_by_websocket(server.port)) == seen


# In containers


def block(language: str) -> str:
    """The only fence of a language on the page."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def instructions(text: str) -> list[tuple[str, str]]:
    """What a Dockerfile whose lines do not continue does, in order."""
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in text.splitlines()]


def image(text: str, context: Path, root: Path) -> tuple[Path, list[str]]:
    """The working folder as a Dockerfile makes it below `root`, and the command that it runs there."""
    folder, command = root, list[str]()
    for name, argument in instructions(text):
        if name == "WORKDIR":
            folder = root / argument.lstrip("/")
            folder.mkdir(parents=True)
        elif name == "COPY":
            source, target = argument.split()
            if (context / source).is_dir():
                shutil.copytree(context / source, folder / target)
            else:
                shutil.copy(context / source, folder / target)
        elif name == "RUN":
            check_install(shlex.split(argument), folder)
        elif name == "CMD":
            command = json.loads(argument)
        else:
            assert name in ("FROM", "USER", "EXPOSE"), name
    return folder, command


def check_install(words: list[str], folder: Path) -> None:
    """That pip would find what it is told to install, where it is told."""
    assert words[:3] == ["pip", "install", "--no-cache-dir"]
    for wanted in words[3:]:
        local = re.fullmatch(r"(\./[\w-]+)\[(\w+)\]", wanted)
        if local:
            metadata = (folder / local[1] / "pyproject.toml").read_text(encoding="utf-8")
            assert f"\n{local[2]} = [" in metadata, wanted
        else:
            assert distribution(wanted).version


@pytest.mark.page("docs/guides/deploying.md", "```dockerfile")
def test_what_the_dockerfile_does(tmp_path: Path) -> None:
    """Each of its lines but those that need Docker: its command, in the folder that the others have made."""
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(ROOT / "docs_src" / "guides" / "deploying" / "room.py", context)
    package = ROOT / "packages" / "lilya-websockets"
    shutil.copytree(package, context / package.name, ignore=shutil.ignore_patterns("__pycache__", "tests"))
    folder, (program, *arguments) = image(block("dockerfile"), context, tmp_path / "root")
    assert program == "uvicorn"
    port = str(free_port())
    here = {"0.0.0.0": "127.0.0.1", "8000": port}
    assert set(here) < set(arguments)
    process = subprocess.Popen(
        [sys.executable, "-m", program, *(here.get(each, each) for each in arguments)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with at(int(port)) as connection:
            assert json.loads(connection.recv(LIMIT)) == {"worker": process.pid}
            process.terminate()
            assert end_of(connection) == 1012
        process.wait(LIMIT)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("COPY lilya-websockets lilya-websockets", "COPY lilya-sockets lilya-websockets"),
        ("[redis]", "[rediss]"),
        ("uvicorn websockets", "uvicornn websockets"),
        ("./lilya", "./packages/lilya"),
        ("USER", "USR"),
    ],
)
def test_planted_in_the_dockerfile(old: str, new: str, tmp_path: Path) -> None:
    text = block("dockerfile")
    assert old in text
    for name in ("room.py", "lilya-websockets/pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("\nredis = []\n", encoding="utf-8")
    image(text, tmp_path, tmp_path / "good")
    with pytest.raises(Exception, match=r"."):
        image(text.replace(old, new), tmp_path, tmp_path / "bad")


def wrong_objects(text: str) -> list[str]:
    """What is wrong with objects for Kubernetes, or does not go with the Dockerfile and the app."""
    objects = {each["kind"]: each for each in yaml.safe_load_all(text)}
    assert set(objects) == {"Deployment", "Service"}
    found = []
    for kind, each in objects.items():
        try:
            known: Any = codecs.from_dict(each)
            if known.to_dict() != each:
                found.append(f"{kind}: it has fields that Kubernetes does not know")
        except Exception as error:  # of the library that has the types
            found.append(f"{kind}: {error}")
    if found:
        return found
    (command,) = [
        json.loads(argument) for name, argument in instructions(block("dockerfile")) if name == "CMD"
    ]
    options = dict(itertools.pairwise(command))
    deployment, service = (objects[kind]["spec"] for kind in ("Deployment", "Service"))
    template = deployment["template"]
    pod, labels = template["spec"], template["metadata"]["labels"]
    (container,) = pod["containers"]
    ports = {
        int(options["--port"]),
        *(each["containerPort"] for each in container["ports"]),
        *(each["targetPort"] for each in service["ports"]),
        container["readinessProbe"]["tcpSocket"]["port"],
    }
    if len(ports) != 1:
        found.append(f"the ports differ: {sorted(ports)}")
    if not labels == deployment["selector"]["matchLabels"] == service["selector"]:
        found.append("the labels differ")
    app = (ROOT / "docs_src" / "guides" / "deploying" / "room.py").read_text(encoding="utf-8")
    within = int(re.findall(r"within=(\d+)", app)[0])
    limit = int(options["--timeout-graceful-shutdown"])
    if (
        not within
        < limit
        < pod["terminationGracePeriodSeconds"] - container["lifecycle"]["preStop"]["sleep"]["seconds"]
    ):
        found.append("it is killed before it has stopped")
    settings = PAGE.partition("## Environment variables")[2]
    found += [
        f"nobody reads {variable['name']}"
        for variable in container["env"]
        if variable["name"] not in (app if "valueFrom" in variable else settings)
    ]
    return found


@pytest.mark.page("docs/guides/deploying.md", "```yaml")
def test_the_objects_for_kubernetes() -> None:
    assert wrong_objects(block("yaml")) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("replicas: 2", "replicas: two", "Deployment: Expected `int | null`"),
        ("readinessProbe", "readinesProbe", "Deployment: it has fields that"),
        ("containerPort: 8000", "containerPort: 8080", "the ports differ"),
        ("targetPort: 8000", "targetPort: 8001", "the ports differ"),
        ("    app: room\n  ports", "    app: rooms\n  ports", "the labels differ"),
        ("PeriodSeconds: 30", "PeriodSeconds: 15", "it is killed before"),
        ("CHANNELS_URL", "CHANNEL_URL", "nobody reads CHANNEL_URL"),
        ("FORWARDED_ALLOW_IPS", "FORWARDED_IPS", "nobody reads FORWARDED_IPS"),
    ],
)
def test_planted_in_the_objects(old: str, new: str, problem: str) -> None:
    text = block("yaml")
    assert old in text
    (found,) = wrong_objects(text.replace(old, new))
    assert found.startswith(problem)


@pytest.mark.page("docs/guides/deploying.md", "```nginx")
def test_the_helper_says_when_the_page_has_changed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not contain 'listen 80;'"):
        configured(tmp_path, 1, [2], {"listen 80;": ""}, "")


def test_planted_faults() -> None:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        assert group_lives(process.pid)
    finally:
        process.kill()
        process.wait()
    assert not group_lives(process.pid)
