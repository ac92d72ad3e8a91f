"""The AsyncAPI documents of the examples of the pages."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

from lilya.websockets.asyncapi import AsyncAPI
from ws_doctest import transcript
from ws_doctest._apps import has_app, transcripts_of

ROOT = Path(__file__).parents[2]
FRAMEWORKS = ("FastAPI(", "Starlette(", "Litestar(")

# Transcripts with messages that are not of the models, and why.
NOT_OF_THE_MODELS = {"docs_src/guides/typed/errors.ws": "the app tells of errors as text, beside its types"}


def documents() -> dict[str, AsyncAPI]:
    """By file: the document of an app of a framework, or of an app whose WebSockets have types."""
    found = {}
    for file in sorted((ROOT / "docs_src").rglob("*.py")):
        source = file.read_text("utf-8")
        name = file.relative_to(ROOT).as_posix()
        # A handler that wraps has no types that can be read.
        wraps = "].wrap(" in source and "describe(" not in source
        is_known = any(each in source for each in FRAMEWORKS) and not wraps
        if not has_app(file) or not (is_known or "WebSocket[" in source) or "from lilya.apps" in source:
            continue
        module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
        files = transcripts_of(file)
        app = module.app if is_known else _handlers(source, vars(module), files)
        left_out = {ROOT / each for each in NOT_OF_THE_MODELS}
        examples = [path for path in files if path not in left_out]
        found[name] = AsyncAPI(app, title=file.stem, transcripts=examples)
    return found


def _handlers(source: str, names: dict[str, Any], files: list[Path]) -> dict[str, Any]:
    """The types of an app of no framework, by the paths to which its clients connect."""
    tree = ast.parse(source)
    subclasses = [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef) and any("WebSocket[" in ast.unparse(base) for base in node.bases)
    ]
    made, *others = subclasses or {
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "WebSocket"
    }
    assert not others, f"it has more than one kind of WebSocket: {made}, {others}"
    paths = [path for file in files for path in transcript.parse(file.read_text("utf-8")).paths]
    return {path.partition("?")[0]: eval(made, names) for path in paths}
