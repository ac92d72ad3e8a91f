"""The page *AsyncAPI*: its documents are those of its apps, and the documents of all examples are sound."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from docs_src.guides.asyncapi import chat
from lilya.websockets.__main__ import main
from lilya.websockets.asyncapi import AsyncAPI
from tests.docs.asyncapi_examples import NOT_OF_THE_MODELS, documents
from tests.lilya_websockets.documents import problems

pytestmark = pytest.mark.page("docs/guides/asyncapi.md", "## What the document contains")

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs_src" / "guides" / "asyncapi"
PAGE = ROOT / "docs" / "guides" / "asyncapi.md"
DOCUMENTS = documents()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_documents_of_the_examples(name: str) -> None:
    asyncapi = DOCUMENTS[name]
    assert problems(asyncapi.document) == []
    assert asyncapi.document["channels"]


def test_every_example_with_types_is_among_them() -> None:
    typed = {path.as_posix() for path in (ROOT / "docs_src/guides/typed").glob("*.ws")}
    assert {path.replace(".ws", ".py") for path in typed} == {
        (ROOT / name).as_posix() for name in DOCUMENTS if "/typed/" in name
    }
    for name, asyncapi in DOCUMENTS.items():
        messages = [
            message
            for channel in asyncapi.document["channels"].values()
            for message in channel.get("messages", {}).values()
        ]
        if "/typed/" in name or "/asyncapi/" in name:
            has_examples = any("examples" in message for message in messages)
            assert has_examples is (name.replace(".py", ".ws") not in NOT_OF_THE_MODELS), name


@pytest.mark.parametrize("name", NOT_OF_THE_MODELS)
def test_what_is_not_of_the_models_is_an_error(name: str) -> None:
    asyncapi = DOCUMENTS[name.replace(".ws", ".py")]
    with pytest.raises(ValueError, match=r"errors.ws:\d+: this is no Bid"):
        AsyncAPI(asyncapi._app, transcripts=[ROOT / name]).to_json()


@pytest.mark.page("docs/guides/asyncapi.md", "## Write the document to a file")
def test_the_document_on_the_page() -> None:
    file = FOLDER / "chat.yaml"
    assert main(["asyncapi", "docs_src.guides.asyncapi.chat:asyncapi", "--check", str(file)]) == 0


@pytest.mark.page("docs/guides/asyncapi.md", "## Examples from transcripts")
def test_an_example_of_each_message() -> None:
    (channel,) = chat.asyncapi.document["channels"].values()
    assert all(len(message["examples"]) == 1 for message in channel["messages"].values())


def test_planted_fault(tmp_path: Path) -> None:
    """A message on the page that is of no model is an error that names the file and the line."""
    text = (FOLDER / "chat.ws").read_text("utf-8")
    file = tmp_path / "chat.ws"
    file.write_text(text.replace('"messages": 1', '"messages": "one"'), encoding="utf-8")
    with pytest.raises(ValueError, match=r"chat\.ws:6: this is no Said \| Counted, which the app of"):
        AsyncAPI(chat.app, transcripts=[file]).to_json()


@pytest.mark.page("docs/guides/asyncapi.md", "## A client in TypeScript")
def test_the_client_is_as_short_as_the_page_says() -> None:
    lines = (FOLDER / "client.ts").read_text("utf-8").splitlines()
    said = re.search(r"a client of (\d+) lines", PAGE.read_text("utf-8"))
    assert said is not None
    assert len(lines) <= int(said[1])
    # It handles what the document has, and nothing else.
    kinds = set(re.findall(r'case "(\w+)"', "\n".join(lines)))
    schemas = json.loads(chat.asyncapi.to_json())["components"]["schemas"]
    assert kinds == {schemas[name]["properties"]["type"]["const"] for name in ("Said", "Counted")}
