"""`AsyncAPI` as an ASGI app: what it serves, where it is mounted, and what may run on the page."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
from typing import Any

import pytest
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Mount

from lilya.websockets import WebSocket
from lilya.websockets.asyncapi import AsyncAPI
from lilya.websockets.asyncapi._app import _PAGE
from lilya.websockets.testing import TestClient, WebSocketDenialResponse
from tests.lilya_websockets import asyncapi_app

HOSTILE = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>\u2028${1}`DOCUMENT"


class Hostile(BaseModel):
    __doc__ = HOSTILE
    text: str


async def ask(
    app: Any, path: str, method: str = "GET", root_path: str | None = "", raw_path: bytes | None = None
) -> tuple[int, dict[str, str], bytes]:
    """What an app responds, without a client in between."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {"type": "http", "method": method, "path": path, "root_path": root_path, "headers": []}
    scope |= {} if raw_path is None else {"raw_path": raw_path}
    await app(scope, None, send)
    start, body = sent
    return start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, body["body"]


@pytest.mark.anyio
async def test_the_documents() -> None:
    for kind, text in (
        ("json", asyncapi_app.documents.to_json()),
        ("yaml", asyncapi_app.documents.to_yaml()),
    ):
        status, headers, body = await ask(asyncapi_app.app, f"/asyncapi/asyncapi.{kind}")
        assert (status, headers["content-type"], body.decode()) == (200, f"application/{kind}", text)
        assert {"cache-control", "referrer-policy", "x-content-type-options"} < headers.keys()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("root_path", "prefix"),
    [
        ("", ""),
        (None, ""),
        ("/docs", "/docs"),
        ("/docs", ""),
        ("/docs/", "/docs"),
        ("/a/docs", "/a/docs"),
        # A proxy has cut a prefix off, and the router nothing.
        ("/a/docs", "/docs"),
        ("/a/b/docs", "/docs"),
        ("/a/b/docs", "/b/docs"),
    ],
)
async def test_where_it_is_mounted(root_path: str | None, prefix: str) -> None:
    """Most routers leave the path as it is; some cut off what they have matched."""
    app = asyncapi_app.documents
    assert (await ask(app, f"{prefix}/", root_path=root_path))[0] == 200
    assert (await ask(app, f"{prefix}/asyncapi.json", root_path=root_path))[0] == 200
    assert (await ask(app, f"{prefix}/other/asyncapi.json", root_path=root_path))[0] == 404
    # Litestar adds a slash.
    assert (await ask(app, f"{prefix}/asyncapi.json/", root_path=root_path))[0] == 200


@pytest.mark.anyio
async def test_an_address_without_the_slash_leads_to_the_page() -> None:
    for path, root_path, raw_path in (
        ("/docs", "/docs", None),
        ("/a/docs", "/a/docs", b"/a/docs"),
        ("/", "", b"/a/docs"),
    ):
        status, headers, _ = await ask(asyncapi_app.documents, path, root_path=root_path, raw_path=raw_path)
        assert (status, headers["location"]) == (307, "docs/")
    status, headers, _ = await ask(asyncapi_app.documents, "/ü", root_path="/ü")
    assert (status, headers["location"]) == (307, "%C3%BC/")


@pytest.mark.anyio
async def test_methods() -> None:
    for path in ("/", "/asyncapi.json", "/nothing"):
        status, headers, body = await ask(asyncapi_app.documents, path)
        assert headers["content-length"] == str(len(body))
        assert await ask(asyncapi_app.documents, path, "HEAD") == (status, headers, b"")
        status, headers, body = await ask(asyncapi_app.documents, path, "POST")
        assert (status, headers["allow"], body) == (405, "GET, HEAD", b"")


def test_as_an_app_of_its_own() -> None:
    with (  # which starts and stops it
        TestClient(asyncapi_app.documents) as client,
        pytest.raises(WebSocketDenialResponse) as caught,
        client.websocket_connect("/"),
    ):
        pass
    assert caught.value.status_code == 403


class Page(html.parser.HTMLParser):
    """The elements of a page, and the text in those that count."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[int, str] = {}
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[len(self.found) - 1] = self.texts.get(len(self.found) - 1, "") + data

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [
            (attributes, self.texts.get(index, ""))
            for index, (name, attributes) in enumerate(self.found)
            if name == tag
        ]


@pytest.mark.anyio
async def test_the_policy_lets_the_page_run_and_nothing_else() -> None:
    _, headers, body = await ask(asyncapi_app.app, "/asyncapi/")
    assert headers["content-type"] == "text/html; charset=utf-8"
    text = body.decode()
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy.keys() == {
        *("default-src", "script-src", "style-src", "img-src", "connect-src", "base-uri", "form-action"),
        "frame-ancestors",
    }
    assert {policy[name] for name in ("default-src", "base-uri", "form-action", "frame-ancestors")} == {
        "'none'"
    }
    assert policy["connect-src"] == "'self' wss://example.com"
    page = Page(text)
    (_, script), (_, style) = [each for each in page.all("script") if not each[0]] + page.all("style")
    for name, source in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert policy[name] == f"'sha256-{digest}'"
    # Nothing of another host, and nothing that the policy forbids.
    assert not re.search(r"(src|href)=.?(https?:)?//", text)
    assert not [
        tag for tag, attributes in page.found for name in attributes if name.startswith(("on", "style"))
    ]
    assert "innerHTML" not in script
    assert "eval(" not in script


@pytest.mark.parametrize(
    "server", ["wss://x;script-src *", "wss://a.example 'unsafe-inline'", "wss://{region}.a"]
)
def test_a_server_adds_nothing_to_the_policy(server: str) -> None:
    app = AsyncAPI({}, servers={"a": server})
    headers, _ = app._page
    policy = dict(headers)[b"content-security-policy"].decode()
    assert "connect-src 'self'; " in policy


def test_hostile_descriptions_stay_text() -> None:
    async def handler(websocket: WebSocket[Hostile]) -> None: ...

    handler.__doc__ = HOSTILE
    handler.__annotations__["websocket"] = WebSocket[Hostile]
    app = AsyncAPI({"/": handler}, title=HOSTILE, description=HOSTILE)
    page = Page(app._page[1].decode())
    bare = Page(_PAGE.read_text("utf-8"))
    assert [tag for tag, _ in page.found] == [tag for tag, _ in bare.found]
    ((_, text),) = [each for each in page.all("script") if each[0].get("id") == "document"]
    assert json.loads(text) == app.document
    assert json.loads(text)["info"]["title"] == HOSTILE


@pytest.mark.anyio
async def test_mounted_in_itself() -> None:
    app = Starlette()
    app.routes.append(Mount("/asyncapi", AsyncAPI(app)))
    assert (await ask(app, "/asyncapi/"))[0] == 200
    assert "channels" not in json.loads((await ask(app, "/asyncapi/asyncapi.json"))[2])
