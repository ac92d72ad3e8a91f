"""Where the client runs: Chromium, Firefox and Node. Each gives the value of an expression in JavaScript."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Protocol

from tests.docs.browser import LIMIT, Browser, Tab, chromium, wait_for
from tests.docs.firefox import FOUND, Firefox, FirefoxTab

HERE = Path(__file__).parent


class Runtime(Protocol):
    """Something that runs JavaScript, with `connect` of the client as a global name."""

    def run(self, script: str) -> Any: ...
    def close(self) -> None: ...


BROWSERS: dict[str, tuple[str | None, Any, Any]] = {
    "chromium": (chromium(), Browser, Tab),
    "firefox": (FOUND, Firefox, FirefoxTab),
}
"""Where each is, and what drives it and a page in it."""


class InBrowser:
    """A page in a browser of its own.

    Args:
        name: One of `BROWSERS`.
        address: The page.
        ready: An expression that is true as soon as the page can be used.
    """

    def __init__(self, name: str, address: str, ready: str = "window.connect !== undefined") -> None:
        path, browser, tab = BROWSERS[name]
        self.browser = browser(str(path))
        try:
            self.tab = tab(self.browser, address)
            wait_for(lambda: self.run(ready))
        except BaseException:
            self.close()
            raise

    def run(self, script: str) -> Any:
        """The value of an expression; of a promise, what it resolves with."""
        return self.tab.resolve(script)

    def close(self) -> None:
        """End it."""
        self.browser.close()


class InNode:
    """A process of Node.

    Args:
        module: The client.
        tools: A folder with the package `ws`, whose class is used instead of Node's own.
    """

    def __init__(self, module: Path, tools: Path | None = None) -> None:
        script: Path = HERE / "evaluate.mjs"
        if tools is not None:  # Node looks for packages beside the script
            script = Path(shutil.copy(script, tools))
        self.process = subprocess.Popen(
            # Node 20 has the browser's WebSocket behind this option, later ones without.
            ["node", "--experimental-websocket", str(script), module.as_uri(), "ws" if tools else ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, script: str) -> Any:
        """The value of an expression; of a promise, what it resolves with."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(script) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline() or '{"error": "Node has ended"}')
        assert "error" not in answer, (script, answer["error"])
        return answer.get("value")

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def ends(self) -> int:
        """Wait until it ends by itself, because nothing is left to do."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(LIMIT)


def until(runtime: Runtime, condition: str) -> None:
    """Wait for an expression to be true."""
    try:
        wait_for(lambda: runtime.run(condition))
    except TimeoutError:
        seen = runtime.run("JSON.stringify(globalThis.seen) + JSON.stringify(globalThis.states)")
        raise TimeoutError(f"not within {LIMIT:g} s: {condition}\n{seen}") from None
