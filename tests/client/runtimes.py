"""Where the client runs: Chromium, Firefox and Node. Each gives the value of an expression in JavaScript."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any, Protocol

from websockets.sync.client import connect

from tests.docs.browser import LIMIT, Browser, Tab, chromium, wait_for

HERE = Path(__file__).parent


class Runtime(Protocol):
    """Something that runs JavaScript, with `connect` of the client as a global name."""

    def run(self, script: str) -> Any: ...
    def close(self) -> None: ...


class InChromium:
    """A page in Chromium."""

    def __init__(self, address: str) -> None:
        self.browser = Browser(str(chromium()))
        self.tab = Tab(self.browser, address)
        self.tab.wait("window.connect !== undefined")

    def run(self, script: str) -> Any:
        """The value of an expression; of a promise, what it resolves with."""
        answer = self.tab.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, (script, answer["exceptionDetails"])
        return answer["result"].get("value")

    def close(self) -> None:
        """End it."""
        self.browser.close()


# Nothing but the page: no updates, no telemetry, no looking whether there is a network, no proxy.
PREFERENCES = {
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.healthreport.uploadEnabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.systemAddon.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.proxy.type": 0,
    "services.settings.server": "data:,",
    "toolkit.telemetry.enabled": False,
}


def firefox() -> str | None:
    """The Firefox on PATH."""
    return next(filter(None, map(shutil.which, ("firefox", "firefox-esr"))), None)


class InFirefox:
    """A page in a headless Firefox with nobody's profile, driven by WebDriver BiDi, which it speaks itself.

    Args:
        address: The page.
        ready: An expression that is true as soon as the page can be used.
    """

    def __init__(self, address: str, ready: str = "window.connect !== undefined") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="firefox-"))
        lines = [f"user_pref({json.dumps(each)}, {json.dumps(PREFERENCES[each])});\n" for each in PREFERENCES]
        (self.folder / "user.js").write_text("".join(lines), encoding="utf-8")
        self.process = subprocess.Popen(
            [
                str(firefox()),
                "--headless",
                "--no-remote",
                "--remote-debugging-port=0",
                f"--profile={self.folder}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, "HOME": str(self.folder), "MOZ_CRASHREPORTER_DISABLE": "1"},
            start_new_session=True,
        )
        self.said = ""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.calls = 0
        self.stack = contextlib.ExitStack()
        try:
            found = wait_for(self._listens)
            self.line = self.stack.enter_context(
                connect(f"{found[1]}/session", proxy=None, max_size=None, compression=None)
            )
            self.call("session.new", capabilities={})
            self.context = self.call("browsingContext.getTree")["contexts"][0]["context"]
            self.call("browsingContext.navigate", context=self.context, url=address, wait="complete")
            wait_for(lambda: self.run(ready))
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line

    def _listens(self) -> re.Match[str] | None:
        if self.process.poll() is not None:
            raise RuntimeError(f"Firefox ended with {self.process.returncode}:\n{self.said}")
        return re.search(r"BiDi listening on (ws://\S+)", self.said)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of WebDriver BiDi."""
        self.calls += 1
        self.line.send(json.dumps({"id": self.calls, "method": method, "params": params}))
        while True:
            answer = json.loads(self.line.recv(timeout=LIMIT))
            if answer.get("id") == self.calls:
                break
        assert answer["type"] == "success", (method, answer)
        result: dict[str, Any] = answer["result"]
        return result

    def run(self, script: str) -> Any:
        """The value of an expression; of a promise, what it resolves with."""
        answer = self.call(
            "script.evaluate",
            expression=f"(async () => JSON.stringify(await ({script})))()",
            target={"context": self.context},
            awaitPromise=True,
        )
        assert answer["type"] == "success", (script, answer)
        text = answer["result"].get("value")
        return None if text is None else json.loads(text)

    def close(self) -> None:
        """End it, and wait until it is gone."""
        with contextlib.suppress(Exception):
            self.call("browser.close")
        self.stack.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        with contextlib.suppress(ProcessLookupError):  # what is left of the group
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.reader.join(LIMIT)
        assert self.process.stderr is not None
        self.process.stderr.close()
        shutil.rmtree(self.folder, ignore_errors=True)


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
