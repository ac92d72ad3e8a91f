"""`AsyncAPI`: the document of an app, and the ASGI app that serves it with a page."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from .._routes import inner_app
from ..types import Receive, Scope, Send
from ._document import channels_of, document_of, server_of
from ._handlers import conversations_of
from ._text import to_json, to_yaml

__all__ = ["AsyncAPI"]

_PAGE: Final = Path(__file__).with_name("page.html")


class AsyncAPI:
    """The AsyncAPI 3.0 document of an app, and an ASGI app that serves it, with a page to read and try it.

        app.mount("/asyncapi", AsyncAPI(app))

    The same app gives the same document, byte for byte, so you can commit it and compare it in CI. It is made
    on first use, when all routes are declared.

    Args:
        app: An app of FastAPI, Starlette, Litestar or Lilya, also with ASGI middleware around it; or a
            mapping of paths to handlers. The types of messages are those of a parameter that is annotated
            with `WebSocket[In, Out]`, or what `describe` says. Instead of a handler, a mapping may have a
            `WebSocket[In, Out]`.
        title: The title. Default: that of an app of FastAPI or Litestar, otherwise "WebSocket API".
        version: The version of your API. Default: that of an app of FastAPI or Litestar, otherwise "0.1.0".
        description: A description; CommonMark. Default: that of an app of FastAPI or Litestar.
        servers: The addresses of your servers by name, such as `{"production": "wss://example.com"}`.
            Default: the servers of an app of FastAPI that have an absolute address.
        transcripts: Files of transcripts. Their messages are the examples. It needs ws-doctest.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: A server has no address such as `wss://example.com`.
    """

    serves_only_http = True
    """No WebSocket is behind it: `unguarded_routes` does not list it."""

    def __init__(
        self,
        app: Any,
        *,
        title: str | None = None,
        version: str | None = None,
        description: str | None = None,
        servers: Mapping[str, str] | None = None,
        transcripts: Iterable[str | PathLike[str]] = (),
    ) -> None:
        for name, text in (("title", title), ("version", version), ("description", description)):
            if text is not None and not isinstance(text, str):
                raise TypeError(f"{name} must be a string, got {text!r}")
        if servers is not None and not isinstance(servers, Mapping):
            raise TypeError(
                f"servers must have a name for each address, as in {{'production': 'wss://example.com'}}, "
                f"got {servers!r}"
            )
        if isinstance(transcripts, (str, bytes, PathLike)):
            raise TypeError(
                f"transcripts must be a list of files, got {transcripts!r}: write [{transcripts!r}]"
            )
        self._app = app
        self._info = {"title": title, "version": version, "description": description}
        self._servers = None if servers is None else {name: server_of(url) for name, url in servers.items()}
        self._transcripts = list(transcripts)

    @cached_property
    def document(self) -> dict[str, Any]:
        """The document.

        Raises:
            TypeError: The routes of the app cannot be read, an annotation cannot be resolved, or a type has
                no JSON Schema.
            ValueError: A message of a transcript validates as none of its channel.
        """
        channels, components = channels_of(conversations_of(self._app))
        if self._transcripts:
            from ._examples import add_examples

            add_examples(channels, self._transcripts)
        info = {
            "title": self._said("title") or "WebSocket API",
            "version": self._said("version") or "0.1.0",
            "description": self._said("description"),
        }
        info = {key: value for key, value in info.items() if value}
        return document_of(channels, components, info, self._found_servers())

    def to_json(self) -> str:
        """The document as JSON."""
        return to_json(self.document)

    def to_yaml(self) -> str:
        """The document as YAML 1.2, which parsers of YAML 1.1 read alike."""
        return to_yaml(self.document)

    def _said(self, name: str) -> str | None:
        """What is said of the API, here or by the app."""
        if self._info[name] is not None:
            return self._info[name]
        app = self._app
        while app is not None and not isinstance(app, Mapping):
            for owner in (app, getattr(app, "openapi_config", None)):
                if isinstance(value := getattr(owner, name, None), str) and value:
                    return value
            app = inner_app(app)
        return None

    def _found_servers(self) -> dict[str, Any]:
        if self._servers is not None:
            return self._servers
        app = self._app
        while app is not None and not isinstance(getattr(app, "servers", None), list):
            app = inner_app(app)
        listed = [] if app is None else app.servers
        absolute = [each for each in listed if "://" in each.get("url", "")]
        return {
            f"server{number}": server_of(each["url"], each.get("description") or "")
            for number, each in enumerate(absolute, 1)
        }

    # The ASGI app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000, "reason": ""})
            return
        status, headers, body = self._respond(scope)
        headers = [*headers, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _respond(self, scope: Scope) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        if scope["method"] not in ("GET", "HEAD"):
            return 405, [(b"allow", b"GET, HEAD")], b""
        path = scope["path"]
        rest = _below(scope.get("root_path") or "", path).strip("/")
        if not rest:
            asked: bytes = scope.get("raw_path") or quote(path).encode()
            if not asked.endswith(b"/"):  # the page has relative addresses
                return 307, [(b"location", asked.rpartition(b"/")[2] + b"/")], b""
            return 200, *self._page
        if rest == "asyncapi.json":
            return 200, _headers("application/json"), self.to_json().encode()
        if rest == "asyncapi.yaml":
            return 200, _headers("application/yaml"), self.to_yaml().encode()
        return 404, _headers("text/plain; charset=utf-8"), b"There is no such page."

    @cached_property
    def _page(self) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """The page with the document in it, and its headers."""
        template = _PAGE.read_text("utf-8")
        # In a `script`, only `<` can end the document, or start a comment.
        document = json.dumps(self.document, allow_nan=False).replace("<", "\\u003c")
        servers = [
            f"{each['protocol']}://{each['host']}" for each in self.document.get("servers", {}).values()
        ]
        policy = "; ".join(
            (
                "default-src 'none'",
                f"script-src {_hashed(template, 'script')}",
                f"style-src {_hashed(template, 'style')}",
                "img-src data:",
                " ".join(("connect-src 'self'", *(each for each in servers if _SOURCE(each)))),
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
            )
        )
        headers = [*_headers("text/html; charset=utf-8"), (b"content-security-policy", policy.encode())]
        return headers, template.replace("DOCUMENT", document, 1).encode()


def _below(root: str, path: str) -> str:
    """The part of a path below where the app is mounted.

    Most routers add what they have matched to `root_path` and leave the path as it is. Some cut it off the
    path, and Litestar adds a slash. A proxy may have cut the first part of `root_path` off the path.
    """
    root = root.rstrip("/")
    while root:
        if path == root or path.startswith(f"{root}/"):
            return path[len(root) :]
        start = root.find("/", 1)
        root = root[start:] if start > 0 else ""
    return path


# What may stand in a policy. Another address would change what it says.
_SOURCE: Final[Callable[[str], Any]] = re.compile(r"wss?://[A-Za-z0-9.\-\[\]:]+").fullmatch


def _headers(content_type: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", content_type.encode()),
        (b"cache-control", b"no-cache"),
        (b"referrer-policy", b"no-referrer"),
        (b"x-content-type-options", b"nosniff"),
    ]


def _hashed(template: str, tag: str) -> str:
    """The element of the page that may run, or style it, as a source of a policy."""
    (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", template, re.DOTALL)
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
