"""What is installed and what is imported."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
import tarfile
import typing
import zipfile
from pathlib import Path

import pytest

import lilya.websockets
from lilya.websockets import WebSocket, datastructures, draining, exceptions, limits, observing, tokens, types

PACKAGE = Path(__file__).parents[2] / "packages" / "lilya-websockets"
SOURCES = sorted((PACKAGE / "src" / "lilya" / "websockets").glob("*.py"))
CHANNELS = sorted((PACKAGE / "src" / "lilya" / "websockets" / "channels").glob("*.py"))
UVICORN = sorted((PACKAGE / "src" / "lilya" / "websockets" / "uvicorn").glob("*.py"))
TYPED = sorted((PACKAGE / "src" / "lilya" / "websockets" / "typed").glob("*.py"))
ASYNCAPI = sorted((PACKAGE / "src" / "lilya" / "websockets" / "asyncapi").glob("*.*"))
TESTING = sorted((PACKAGE / "src" / "lilya" / "websockets" / "testing").glob("*.py"))


def python(source: str, *options: str) -> str:
    completed = subprocess.run(
        [sys.executable, *options, "-c", source], capture_output=True, text=True, timeout=60, check=False
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


def test_the_public_names() -> None:
    assert lilya.websockets.__all__ == [
        "URL",
        "Address",
        "Header",
        "PreparedMessage",
        "QueryParam",
        "State",
        "WebSocket",
        "WebSocketClose",
        "WebSocketClosed",
        "WebSocketDataError",
        "WebSocketDisconnect",
        "WebSocketRuntimeError",
        "WebSocketState",
    ]
    assert all(hasattr(lilya.websockets, name) for name in lilya.websockets.__all__)
    public = {
        name
        for name, value in vars(lilya.websockets).items()
        if name[0] != "_" and not inspect.ismodule(value)
    }
    assert public == set(lilya.websockets.__all__)


@pytest.mark.parametrize(
    "module", [lilya.websockets, datastructures, draining, exceptions, limits, observing, tokens, types]
)
def test_annotations_can_be_resolved(module: object) -> None:
    """Frameworks that inject by annotation resolve them, and so do tools."""
    for name in vars(module)["__all__"]:
        value = getattr(module, name)
        functions = vars(value).values() if inspect.isclass(value) else ()
        for each in (value, *(function for function in functions if inspect.isfunction(function))):
            if inspect.isclass(each) or inspect.isfunction(each):
                typing.get_type_hints(each)
    assert typing.get_type_hints(WebSocket)["close_code"] == (int | None)


@pytest.mark.parametrize("module", [datastructures, draining, exceptions, limits, observing, tokens, types])
def test_the_names_of_public_modules_exist(module: object) -> None:
    names = vars(module)["__all__"]
    assert len(set(names)) == len(names)
    assert all(hasattr(module, name) for name in names)


@pytest.mark.parametrize(
    ("module", "absent", "said"),
    [
        (
            "redis",
            "redis",
            "lilya.websockets.redis needs the client of Redis: install lilya-websockets[redis]",
        ),
        (
            "prometheus",
            "prometheus_client",
            "lilya.websockets.prometheus needs prometheus-client: install lilya-websockets[prometheus]",
        ),
        (
            "opentelemetry",
            "opentelemetry",
            "lilya.websockets.opentelemetry needs OpenTelemetry's API: "
            "install lilya-websockets[opentelemetry]",
        ),
        (
            "uvicorn",
            "websockets",
            "lilya.websockets.uvicorn needs uvicorn and websockets: install lilya-websockets[uvicorn]",
        ),
    ],
)
def test_what_is_not_installed_is_named_with_its_extra(module: str, absent: str, said: str) -> None:
    source = f"""
import sys
sys.modules[{absent!r}] = None
try:
    import lilya.websockets.{module}
except ImportError as error:
    print(error)
"""
    assert python(source).strip() == said


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = f"from hatchling.build import build_wheel; print(build_wheel({str(folder)!r}))"
    completed = subprocess.run(
        [sys.executable, "-c", build],
        cwd=PACKAGE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"SOURCE_DATE_EPOCH": "1700000000"},
    )
    assert completed.returncode == 0, completed.stderr
    return zipfile.Path(folder / completed.stdout.split()[-1])


def test_the_wheel_holds_nothing_else_under_lilya(wheel: zipfile.Path) -> None:
    names = [name for name in wheel.root.namelist() if not name.endswith("/")]
    modules = {name for name in names if ".dist-info/" not in name}
    testing = {f"lilya/websockets/testing/{path.name}" for path in TESTING}
    channels = {f"lilya/websockets/channels/{path.name}" for path in CHANNELS}
    uvicorn = {f"lilya/websockets/uvicorn/{path.name}" for path in UVICORN}
    typed = {f"lilya/websockets/typed/{path.name}" for path in TYPED}
    asyncapi = {f"lilya/websockets/asyncapi/{path.name}" for path in ASYNCAPI}
    core = {f"lilya/websockets/{path.name}" for path in SOURCES}
    own = {
        "lilya/websockets/py.typed",
        "lilya/websockets/channels/client.js",
        "lilya_websockets_pytest.py",
    }
    assert modules == asyncapi | core | channels | testing | typed | uvicorn | own
    licences = [name for name in names if name.endswith("/LICENSE")]
    assert len(licences) == 1
    assert wheel.root.read(licences[0]) == (PACKAGE / "LICENSE").read_bytes()


def test_the_client_for_browsers_is_in_the_wheel_and_in_the_source_distribution(
    wheel: zipfile.Path, tmp_path: Path
) -> None:
    """In the tree it is a link to its own package. A source distribution with the link would be broken."""
    client = (PACKAGE.parent / "lilya-websockets-js" / "lilya-websockets.js").read_bytes()
    assert wheel.root.read("lilya/websockets/channels/client.js") == client
    build = f"from hatchling.build import build_sdist; print(build_sdist({str(tmp_path)!r}))"
    completed = subprocess.run(
        [sys.executable, "-c", build], cwd=PACKAGE, capture_output=True, text=True, timeout=60, check=False
    )
    assert completed.returncode == 0, completed.stderr
    with tarfile.open(tmp_path / completed.stdout.split()[-1]) as archive:
        (member,) = [each for each in archive if each.name.endswith("/channels/client.js")]
        assert member.isfile()
        file = archive.extractfile(member)
        assert file is not None
        assert file.read() == client


def test_the_wheel_says_what_it_needs(wheel: zipfile.Path) -> None:
    (name,) = [name for name in wheel.root.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = wheel.root.read(name).decode().splitlines()
    assert [line for line in metadata if line.startswith("Requires-Dist:")] == [
        "Requires-Dist: anyio>=4.4",
        "Requires-Dist: exceptiongroup>=1.0.2; python_version < '3.11'",
        "Requires-Dist: multidict<8,>=6.0.5",
        "Requires-Dist: msgspec>=0.19; extra == 'msgspec'",
        "Requires-Dist: opentelemetry-api>=1.39; extra == 'opentelemetry'",
        "Requires-Dist: publicsuffixlist>=1.0.2; extra == 'origins'",
        "Requires-Dist: prometheus-client>=0.20; extra == 'prometheus'",
        "Requires-Dist: pydantic<3,>=2.11; extra == 'pydantic'",
        "Requires-Dist: redis[hiredis]>=5; extra == 'redis'",
        "Requires-Dist: uvicorn>=0.54; extra == 'uvicorn'",
        "Requires-Dist: websockets>=16; extra == 'uvicorn'",
    ]
    assert "Requires-Python: >=3.10" in metadata


def test_importing_it_loads_only_multidict_and_the_standard_library() -> None:
    source = """
import sys
import multidict
before = set(sys.modules)
import lilya.websockets
foreign = {name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names
print(sorted(foreign), "asyncio" in sys.modules and "asyncio" not in before)
print([name for name in sys.modules if "uvicorn" in name])
"""
    assert python(source).splitlines() == ["['lilya'] False", "[]"]


def test_typed_messages_load_what_they_use_and_nothing_else() -> None:
    source = """
import sys
import lilya.websockets
from lilya.websockets import WebSocket
print([name for name in sys.modules if "typed" in name])
class Handler:
    def __init__(self, websocket: WebSocket) -> None: ...
print([name for name in sys.modules if "typed" in name])
import lilya.websockets.typed
print([name for name in ("pydantic", "msgspec", "anyio", "typing_extensions") if name in sys.modules])
import msgspec
class Say(msgspec.Struct): text: str
WebSocket[Say]
print([name for name in ("pydantic", "anyio") if name in sys.modules])
"""
    assert python(source).splitlines() == ["[]"] * 4


def test_its_module_for_uvicorn_reaches_the_real_one() -> None:
    source = """
import lilya.websockets.uvicorn as ours, uvicorn, lilya.websockets
print(ours._protocol.get_client_addr.__module__, uvicorn.__file__ != ours.__file__)
print([name for name in lilya.websockets.__all__ if "vicorn" in name])
"""
    assert python(source).splitlines() == ["uvicorn.protocols.utils True", "[]"]


def test_channels_load_anyio_and_no_broker() -> None:
    source = """
import sys
import multidict, anyio, anyio.abc, anyio.from_thread, anyio.lowlevel, anyio._backends._asyncio
before = set(sys.modules)
import lilya.websockets.draining
ours = set(sys.modules)
import lilya.websockets.channels
lilya.websockets.channels.Channels()
foreign = {name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names
print(sorted(foreign), any("channels" in name for name in ours))
"""
    assert python(source).strip() == "['lilya'] False"


def test_the_namespace_is_not_ours_alone() -> None:
    assert python("import lilya; print(getattr(lilya, '__file__', None))").strip() == "None"


# Each imports its framework, and nobody imports it.
FRAMEWORKS = ("starlette", "fastapi", "litestar", "quart")

LAYERS = {
    "types": set[str](),
    "exceptions": set[str](),
    "_state": {"exceptions"},
    "_extensions": {"types"},
    "_messages": {"_extensions", "types"},
    "_servers": {"types"},
    "_shared": {"_state", "types"},
    "datastructures": {"types"},
    "_connection": {"datastructures", "exceptions", "types"},
    "_frameworks": {"_messages", "exceptions", "types"},
    "_inbox": {"types"},
    "_options": {"_inbox", "_messages", "types"},
    "_reader": {"_extensions", "_frameworks", "_inbox", "_options", "_servers", "exceptions", "types"},
    "_direct": {"_extensions", "_frameworks", "_inbox", "_options", "_reader", "_servers", "types"},
    "_conversation": {
        *("_direct", "_extensions", "_frameworks", "_inbox", "_options", "_reader", "_servers"),
        *("_state", "exceptions", "types"),
    },
    "_websocket": {
        *("_connection", "_conversation", "_extensions", "_frameworks", "_messages", "_options", "_servers"),
        *("_shared", "_state", "exceptions", "types"),
    },
    "draining": {
        *("_extensions", "_messages", "_options", "_servers", "_state", "_websocket"),
        *("exceptions", "types"),
    },
    "observing": {"_extensions", "_frameworks", "_inbox", "_servers", "types"},
    "prometheus": {"observing"},
    "opentelemetry": {"observing", "types"},
    "origins": {"_options", "_websocket", "observing", "types"},
    "tokens": {"_websocket", "datastructures", "exceptions", "observing", "types"},
    "limits": {"_messages", "_options", "_websocket", "datastructures", "observing", "types"},
    "redis": {"_options", "limits"},
    "starlette": {"_shared", "_state", "_websocket", "exceptions", "types"},
    "fastapi": {"starlette", "types"},
    "quart": {"_state", "_websocket", "exceptions", "types"},
    "litestar": {"_state", "_websocket", "exceptions", "types"},
    "lilya": {"_messages", "types"},
    # the rooms of its commands are imported by their names
    "__main__": set[str](),
    "_routes": set[str](),
    "__init__": {"_messages", "_state", "_websocket", "datastructures", "exceptions"},
}


# By module of `channels/`: those beside it, and those of the core, also those that are only for annotations.
CHANNEL_LAYERS: dict[str, tuple[set[str], set[str]]] = {
    "_backend": (set[str](), {"_messages", "_options"}),
    "_memory": ({"_backend"}, set[str]()),
    "_scripts": (set[str](), set[str]()),
    "_keys": ({"_scripts"}, set[str]()),
    "_entries": ({"_backend"}, set[str]()),
    "_places": (set[str](), set[str]()),
    "_link": ({"_backend", "_places", "_scripts"}, set[str]()),
    "_sentinel": ({"_link", "_places"}, set[str]()),
    "_listening": ({"_backend", "_link"}, set[str]()),
    "_cluster": ({"_backend", "_keys", "_link", "_listening", "_places", "_scripts"}, set[str]()),
    "_status": ({"_backend"}, set[str]()),
    "_feed": ({"_backend", "_entries", "_keys", "_link", "_listening", "_status"}, set[str]()),
    "_redis": (
        {
            *("_backend", "_cluster", "_entries", "_feed", "_keys", "_link", "_listening", "_places"),
            *("_sentinel", "_status"),
        },
        {"_options"},
    ),
    "_outbox": ({"_backend"}, {"_messages"}),
    "_roster": ({"_backend"}, set[str]()),
    "_recent": ({"_backend", "_outbox"}, set[str]()),
    "_writers": ({"_backend", "_outbox"}, {"_extensions", "_websocket"}),
    "_hub": ({"_backend", "_outbox", "_recent", "_roster", "_writers"}, {"exceptions"}),
    "_subscription": ({"_backend", "_hub", "_outbox"}, {"exceptions"}),
    "_membership": (
        {"_backend", "_hub", "_outbox", "_writers"},
        {"_messages", "_websocket", "draining", "exceptions", "observing", "typed._typed"},
    ),
    "_channels": (
        {"_backend", "_hub", "_membership", "_memory", "_outbox", "_redis", "_subscription"},
        {"_messages", "_options", "_websocket", "exceptions", "typed._typed"},
    ),
    "_publisher": ({"_backend", "_link", "_redis"}, {"_messages", "exceptions"}),
    "_command": ({"", "backends"}, {"_options"}),
    "_serve_messages": ({"_backend", "_outbox"}, {"_messages"}),
    "_serve": (
        {"_backend", "_channels", "_outbox", "_serve_messages"},
        {"_options", "_state", "_websocket", "exceptions", "types"},
    ),
    "backends": ({"_backend"}, set[str]()),
    "__init__": (
        {
            *("_backend", "_channels", "_membership", "_outbox", "_publisher", "_serve", "_serve_messages"),
            "_subscription",
        },
        set[str](),
    ),
}


def circle(layers: dict[str, set[str]]) -> set[str]:
    """The modules that import each other, directly or through others."""
    left = dict(layers)
    while free := [name for name, beside in left.items() if not beside & left.keys()]:
        for name in free:
            del left[name]
    return set(left)


def test_channels_have_no_circle() -> None:
    # "" is the package itself, whose first lines import AnyIO; who names that imports no room.
    layers = {name: beside - {""} for name, (beside, _) in CHANNEL_LAYERS.items()}
    assert circle(layers) == set()
    # A planted one: what was there before.
    planted = layers | {"_writers": layers["_writers"] | {"_membership"}}
    assert circle(planted) >= {"_writers", "_membership", "_hub"}


# What `channels/` may know of a WebSocket beyond its public names, by module: what `WebSocket` has for it,
# and the types of its messages. And of the client of Redis.
FRIENDS = {
    "_membership": {
        *("_check_open", "_ended_by_app", "_is_receiving", "_is_told_by", "_open", "_tell_at_end"),
        *("_tell_no_more", "_typed"),
    },
    "_writers": {"_not_sent", "_send_now"},
    "_link": {"_reader"},
    "_entries": {"_replace"},  # of named tuples
    "_memory": {"_replace"},
}


REACHING = {"getattr", "setattr", "delattr", "hasattr"}


def private(source: str, *others: str) -> set[str]:
    """The private attributes that a module uses of what other modules define.

    A name that the module defines itself counts as its own, unless one of `others` defines it, too: these are
    the sources of modules that it imports.
    """
    nodes = list(ast.walk(ast.parse(source)))
    found = {node.attr for node in nodes if isinstance(node, ast.Attribute) and _is_private(node.attr)}
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in REACHING:
            names = {each.value for each in node.args if isinstance(each, ast.Constant)}
            found |= {name for name in names if isinstance(name, str) and _is_private(name)}
    foreign = set().union(*(_own(other) for other in others))
    reached = {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute)
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    }
    return (found - _own(source)) | (found & foreign & reached)


def _is_private(name: str) -> bool:
    return re.match("_[^_]", name) is not None


def _own(source: str) -> set[str]:
    """The private names that a module defines: functions, methods, and attributes of `self`."""
    nodes = list(ast.walk(ast.parse(source)))
    own = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    own |= {
        node.attr
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }
    return set(filter(_is_private, own))


def sources_below(path: Path) -> list[str]:
    """The sources of what a module of `channels/` works with: modules beside it, and the socket."""
    beside, core = CHANNEL_LAYERS[path.stem]
    below = [path.with_name(f"{name}.py") for name in beside if name]
    below += [path.parents[1] / f"{name}.py" for name in core & {"_websocket"}]
    return [each.read_text(encoding="utf-8") for each in below]


@pytest.mark.parametrize("path", CHANNELS, ids=lambda path: path.stem)
def test_channels_reach_into_nothing(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert private(source, *sources_below(path)) == FRIENDS.get(path.stem, set())


@pytest.mark.parametrize(
    ("name", "planted", "said"),
    [
        ("_membership", "self.websocket._conversation", "_conversation"),
        ("_membership", "self.websocket._block.state", "_block"),
        ("_subscription", "self._hub._positions", "_positions"),
        ("_hub", "self.roster._ttl", "_ttl"),  # the hub has a name like that itself
        ("_serve", "membership._outbox", "_outbox"),
        ("_serve", "getattr(self._part, '_conversation')", "_conversation"),
    ],
)
def test_a_planted_reach_is_seen(name: str, planted: str, said: str) -> None:
    (path,) = (path for path in CHANNELS if path.stem == name)
    source = f"{path.read_text(encoding='utf-8')}\n\ndef planted(self: Any) -> Any:\n    return {planted}\n"
    assert private(source, *sources_below(path)) == {said} | FRIENDS.get(name, set())


def rooms(source: str) -> tuple[set[str], set[str], set[str]]:
    """What a module imports: the modules beside it, those of the core, and those of ours by a full name."""
    beside: set[str] = set()
    core: set[str] = set()
    full: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module is None:
            beside |= {alias.name if _is_private(alias.name) else "" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            (beside, core)[node.level - 1].add(node.module or "")
        elif isinstance(node, ast.ImportFrom):
            full |= {node.module or ""}
        elif isinstance(node, ast.Import):
            full |= {alias.name for alias in node.names}
    return beside, core, {name for name in full if name.partition(".")[0] == "lilya"}


@pytest.mark.parametrize("path", CHANNELS, ids=lambda path: path.stem)
def test_the_layers_of_channels(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    beside, core = CHANNEL_LAYERS[path.stem]
    assert rooms(source) == (beside, core, set())
    assert "import_module" not in source, "no import would show what is loaded"


def test_a_planted_import_is_seen() -> None:
    assert rooms("def late():\n    from ._hub import Hub") == ({"_hub"}, set(), set())
    assert rooms("from . import _hub, Channels") == ({"_hub", ""}, set(), set())
    assert rooms("from ..observing import explain") == (set(), {"observing"}, set())
    assert rooms("import lilya.websockets.channels._hub") == (
        set(),
        set(),
        {"lilya.websockets.channels._hub"},
    )
    assert rooms("from lilya.websockets import WebSocket") == (set(), set(), {"lilya.websockets"})


def offered(source: str) -> set[str]:
    """The names that a module has in its `__all__`."""
    found = re.search(r"^__all__ = (\[.*?\])$", source, re.MULTILINE | re.DOTALL)
    return set(ast.literal_eval(found[1])) if found else set()


def taken(source: str) -> dict[str, set[str]]:
    """By module beside it, the names that a module imports."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            found.setdefault(node.module, set()).update(alias.name for alias in node.names)
    return found


@pytest.mark.parametrize("path", CHANNELS, ids=lambda path: path.stem)
def test_modules_of_channels_take_what_is_offered(path: Path) -> None:
    sources = {each.stem: each.read_text(encoding="utf-8") for each in CHANNELS}
    beside = taken(sources[path.stem])
    assert {name: names - offered(sources[name]) for name, names in beside.items()} == {
        name: set() for name in beside
    }


def test_what_is_taken_and_not_offered_is_seen() -> None:
    assert taken("from ._hub import Hub, logger\nfrom . import _link") == {"_hub": {"Hub", "logger"}}
    assert offered('__all__ = ["Hub"]\nlogger = 1') == {"Hub"}


def sockets_of(source: str) -> list[int]:
    """The lines of a module that use the socket of an outbox."""
    nodes = ast.walk(ast.parse(source))
    return [node.lineno for node in nodes if isinstance(node, ast.Attribute) and node.attr == "websocket"]


def test_the_hub_knows_outboxes_only() -> None:
    (hub,) = (path.read_text(encoding="utf-8") for path in CHANNELS if path.stem == "_hub")
    assert sockets_of(hub) == []
    assert sockets_of(f"{hub}\n\nasync def planted(outbox):\n    await outbox.websocket.close()\n")


# By module of `typed/`: pydantic and msgspec are imported by their own modules, and these by name.
TYPED_LAYERS = {
    "_errors": (set[str](), set[str]()),
    "_codecs": (set[str](), {"_messages", "_options"}),
    "_kinds": (set[str](), set[str]()),
    "_pydantic": ({"_codecs", "_errors", "_kinds"}, set[str]()),
    "_msgspec": ({"_codecs", "_errors", "_kinds"}, set[str]()),
    "_hashes": ({"_kinds"}, set[str]()),
    "_typed": ({"_codecs", "_errors", "_hashes", "_kinds"}, {"_messages", "exceptions"}),
    "_calls": ({"_kinds", "_typed"}, {"exceptions"}),
    "_methods": ({"_calls", "_codecs", "_kinds", "_typed"}, {"_websocket", "exceptions"}),
    "_making": ({"_kinds", "_methods", "_typed"}, {"_websocket"}),
    "__init__": ({"_codecs", "_kinds"}, set[str]()),
}


@pytest.mark.parametrize("path", TYPED, ids=lambda path: path.stem)
def test_the_layers_of_typed_messages(path: Path) -> None:
    imported: tuple[set[str], set[str]] = (set(), set())
    foreign = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            imported[node.level - 1].add(node.module or "")
        elif isinstance(node, ast.ImportFrom):
            foreign.add(str(node.module).partition(".")[0])
        elif isinstance(node, ast.Import):
            foreign.update(alias.name.partition(".")[0] for alias in node.names)
    assert imported == TYPED_LAYERS[path.stem]
    libraries = {"_pydantic": {"msgspec", "pydantic", "pydantic_core"}, "_msgspec": {"msgspec"}}
    elsewhere = {"_codecs": {"msgspec"}, "_calls": {"anyio", "msgspec"}}  # where they are used, not on import
    assert foreign - sys.stdlib_module_names == {**libraries, **elsewhere}.get(path.stem, set())


# By module of `asyncapi/`: those beside it, and those of the core and of `typed/`.
ASYNCAPI_LAYERS = {
    "_text": (set[str](), set[str]()),
    "_schemas": (set[str](), {"typed._kinds"}),
    "_pydantic": ({"_schemas"}, {"typed._kinds", "typed._pydantic"}),
    "_msgspec": ({"_schemas"}, {"typed._kinds"}),
    "_handlers": (set[str](), {"_options", "_routes", "_websocket", "typed._kinds", "typed._typed"}),
    "_document": ({"_handlers", "_schemas"}, {"typed._kinds", "typed._typed"}),
    "_examples": ({"_document", "_schemas"}, {"typed._kinds", "typed._typed"}),
    "_app": ({"_document", "_examples", "_handlers", "_text"}, {"_routes", "types"}),
    "_command": ({"_app"}, set[str]()),
    "__init__": ({"_app", "_handlers"}, set[str]()),
}


@pytest.mark.parametrize(
    "path", [path for path in ASYNCAPI if path.suffix == ".py"], ids=lambda path: path.stem
)
def test_the_layers_of_the_document(path: Path) -> None:
    imported: tuple[set[str], set[str]] = (set(), set())
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            imported[node.level - 1].add(node.module or "")
    assert imported == ASYNCAPI_LAYERS[path.stem]


def test_the_document_loads_the_library_of_its_models_and_nothing_else() -> None:
    source = """
import sys
import lilya.websockets, lilya.websockets.__main__
print([name for name in sys.modules if "asyncapi" in name])
import msgspec
from lilya.websockets import WebSocket
from lilya.websockets.asyncapi import AsyncAPI
class Say(msgspec.Struct): text: str
AsyncAPI({"/": WebSocket[Say]}).to_yaml()
print([name for name in ("pydantic", "anyio", "yaml", "ws_doctest", "starlette") if name in sys.modules])
"""
    assert python(source).splitlines() == ["[]"] * 2


# By module of `uvicorn/`, the server's side: of the core it knows the names of extensions, and nothing else.
UVICORN_LAYERS = {
    "_heads": (set[str](), set[str]()),
    "_phases": (set[str](), set[str]()),
    "_frames": ({"_deflate"}, set[str]()),
    "_deflate": (set[str](), set[str]()),
    "_handshake": ({"_deflate", "_heads"}, set[str]()),
    "_guarded": ({"_heads"}, set[str]()),
    "_httptools": ({"_guarded", "_heads"}, set[str]()),
    "_http": ({"_guarded", "_handshake", "_heads", "_httptools", "_protocol"}, set[str]()),
    "_protocol": ({"_deflate", "_frames", "_handshake", "_heads", "_phases"}, {"_extensions"}),
    "__init__": ({"_http", "_protocol"}, set[str]()),
}


@pytest.mark.parametrize("path", UVICORN, ids=lambda path: path.stem)
def test_the_layers_of_the_protocol(path: Path) -> None:
    imported: tuple[set[str], set[str]] = (set(), set())
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            imported[node.level - 1].add(node.module or "")
    assert imported == UVICORN_LAYERS[path.stem]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_imports_point_down_only(path: Path) -> None:
    imported = {
        node.module
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level == 1
    }
    assert imported == LAYERS[path.stem]


@pytest.mark.parametrize("path", [*SOURCES, *CHANNELS, *TYPED, *UVICORN], ids=lambda path: path.stem)
@pytest.mark.contract("exceptions-no-assert")
def test_nothing_is_asserted(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    assert not [node for node in nodes if isinstance(node, ast.Assert)]
    if path in (*CHANNELS, *TYPED, *UVICORN):
        return
    if path.stem not in (
        *(
            "_websocket",
            "_conversation",
            "_direct",
            "_reader",
            "_shared",
            "draining",
            "limits",
            "origins",
            "tokens",
        ),
        *("lilya", "observing", "redis"),
        *FRAMEWORKS,
    ):
        assert not [node for node in nodes if isinstance(node, ast.Await)]


@pytest.mark.contract("exceptions-no-assert")
def test_optimised_python_checks_as_much() -> None:
    source = """
from lilya.websockets import *
def refused(use, error):
    try:
        use()
    except error:
        print("refused")
refused(lambda: WebSocket({"type": "http"}, None, None), ValueError)
refused(lambda: WebSocketClose(1005), ValueError)
websocket = WebSocket({"type": "websocket", "path": "/", "headers": []}, None, None)
refused(lambda: websocket.accept(headers=[("a", "\\r\\n")]).send(None), ValueError)
refused(lambda: websocket.receive_text().send(None), WebSocketRuntimeError)
refused(lambda: websocket.send_bytes("a").send(None), TypeError)
"""
    assert python(source, "-O", "-W", "error").split() == ["refused"] * 5


# What no code of the package may do with what clients and brokers send


def uses(source: str, names: set[str]) -> list[str]:
    """Those of these names that a file has in its code."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {(node.module or "").partition(".")[0], *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Name):
            found.add(node.id)
    return sorted(found & names)


EVERYTHING = sorted((PACKAGE / "src" / "lilya" / "websockets").rglob("*.py"))
EVALUATING = {"pickle", "marshal", "shelve", "dill", "yaml", "eval", "exec", "compile_command"}
THREADING = {"Thread", "ThreadPoolExecutor", "to_thread", "run_in_executor", "start_new_thread", "Process"}
# The loop of the test client, which tests start and no client does.
THREADS_OF_TESTS = {"testing/_loop.py"}


def all_that_use(names: set[str]) -> dict[str, list[str]]:
    root = PACKAGE / "src" / "lilya" / "websockets"
    found = {
        path.relative_to(root).as_posix(): uses(path.read_text(encoding="utf-8"), names)
        for path in EVERYTHING
    }
    return {file: used for file, used in found.items() if used}


def test_nothing_is_unpickled_or_evaluated() -> None:
    assert len(EVERYTHING) > 60
    assert all_that_use(EVALUATING) == {}


def test_a_client_starts_no_thread() -> None:
    assert all_that_use(THREADING).keys() == THREADS_OF_TESTS


def test_what_would_be_unpickled_is_seen() -> None:
    for source in ("import pickle", "from pickle import loads", "eval(text)", "builtins.exec(text)"):
        assert uses(source, EVALUATING), source
    for source in ("from threading import Thread", "anyio.to_thread.run_sync(f)", "loop.run_in_executor(f)"):
        assert uses(source, THREADING), source
    assert uses("re.compile(pattern)", EVALUATING) == []
