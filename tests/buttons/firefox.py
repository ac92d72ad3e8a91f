"""A headless Firefox, driven by WebDriver BiDi, with what these tests need of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from tests.docs.browser import LIMIT, wait_for

FOUND = shutil.which("firefox-esr") or shutil.which("firefox")


class Firefox:
    """A running Firefox, with nobody's profile."""

    def __init__(self, path: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="firefox-"))
        # Nothing that it would ask others for by itself.
        settings = {
            "app.normandy.enabled": False,
            "app.update.enabled": False,
            "browser.safebrowsing.update.enabled": False,
            "datareporting.policy.dataSubmissionEnabled": False,
            "network.captive-portal-service.enabled": False,
            "network.connectivity-service.enabled": False,
            "services.settings.server": "data:,",
            "toolkit.telemetry.enabled": False,
        }
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in settings.items()]
        (self.folder / "user.js").write_text("\n".join(lines), encoding="utf-8")
        self.output = self.folder / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [path, "--headless", "--no-remote", "--remote-debugging-port=0", f"--profile={self.folder}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, which can be ended as one
                env={**os.environ, "HOME": str(self.folder)},
            )
        self.calls = 0
        self.events: list[dict[str, Any]] = []
        self.stack = contextlib.ExitStack()
        try:
            address = wait_for(
                lambda: re.search(r"BiDi listening on (ws://\S+)", self.output.read_text(errors="replace"))
            )[1]
            self.line = self.stack.enter_context(
                connect(f"{address}/session", proxy=None, max_size=None, compression=None)
            )
            self.call("session.new", capabilities={})
            self.call("session.subscribe", events=["network.beforeRequestSent", "log.entryAdded"])
        except BaseException:
            self._end()
            raise

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        self.calls += 1
        self.line.send(json.dumps({"id": self.calls, "method": method, "params": params}))
        while True:
            answer = json.loads(self.line.recv(timeout=LIMIT))
            if answer.get("id") == self.calls:
                break
            self.events.append(answer)
        assert answer["type"] == "success", (method, answer)
        result: dict[str, Any] = answer["result"]
        return result

    def close(self) -> None:
        """End it, and wait until it is gone."""
        with contextlib.suppress(Exception):
            self.call("browser.close")
        self.stack.close()
        self._end()

    def _end(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        with contextlib.suppress(ProcessLookupError):  # what is left of the group
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class FirefoxTab:
    """One page in it."""

    def __init__(self, browser: Firefox, address: str) -> None:
        self.browser = browser
        self.context = browser.call("browsingContext.create", type="tab")["context"]
        self.first = len(browser.events)  # those before it are of other tabs
        browser.call("browsingContext.navigate", context=self.context, url=address, wait="complete")

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.browser.call(
            "script.evaluate",
            expression=f"JSON.stringify({script})",
            target={"context": self.context},
            awaitPromise=False,
        )
        assert answer["type"] == "success", (script, answer)
        value = answer["result"].get("value")
        return None if value is None else json.loads(value)

    def press(self, key: str) -> None:
        """Press a key: a character, or `Enter` or `Tab`."""
        code = {"Enter": "\ue007", "Tab": "\ue004"}.get(key, key)
        actions = [{"type": "keyDown", "value": code}, {"type": "keyUp", "value": code}]
        self.browser.call(
            "input.performActions",
            context=self.context,
            actions=[{"type": "key", "id": "keyboard", "actions": actions}],
        )

    def requests(self) -> list[str]:
        """The addresses of what it has asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self.browser.events[self.first :]
            if event.get("method") == "network.beforeRequestSent"
        ]

    def complaints(self) -> list[str]:
        """What the browser complains about."""
        return [
            str(event["params"]["text"])
            for event in self.browser.events[self.first :]
            if event.get("method") == "log.entryAdded" and event["params"]["level"] == "error"
        ]

    def close(self) -> None:
        """Close it."""
        self.browser.call("browsingContext.close", context=self.context)
