"""A headless Firefox, driven by WebDriver BiDi, with what the tests need of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from tests.docs.browser import LIMIT, LINE, end_group, wait_for

FOUND = shutil.which("firefox-esr") or shutil.which("firefox")


class Firefox:
    """A running Firefox, with nobody's profile."""

    def __init__(self, path: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="firefox-"))
        # Nothing that it would ask others for by itself, and no proxy.
        settings = {
            "app.normandy.enabled": False,
            "app.update.enabled": False,
            "browser.safebrowsing.malware.enabled": False,
            "browser.safebrowsing.phishing.enabled": False,
            "browser.safebrowsing.update.enabled": False,
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
                env={**os.environ, "HOME": str(self.folder), "MOZ_CRASHREPORTER_DISABLE": "1"},
            )
        self.calls = 0
        self.events: list[dict[str, Any]] = []
        self.stack = contextlib.ExitStack()
        try:
            address = wait_for(self._listens)[1]
            self.line = self.stack.enter_context(connect(f"{address}/session", **LINE))
            self.call("session.new", capabilities={})
            self.call("session.subscribe", events=["network.beforeRequestSent", "log.entryAdded"])
        except BaseException:
            self._end()
            raise

    def _listens(self) -> re.Match[str] | None:
        said = self.output.read_text(errors="replace")
        if self.process.poll() is not None:
            raise RuntimeError(f"Firefox ended with {self.process.returncode}:\n{said}")
        return re.search(r"BiDi listening on (ws://\S+)", said)

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
        end_group(self.process)
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
        return self._evaluate(f"JSON.stringify({script})", False)

    def resolve(self, script: str) -> Any:
        """What the promise that is an expression's value resolves with."""
        return self._evaluate(f"(async () => JSON.stringify(await ({script})))()", True)

    def _evaluate(self, expression: str, wait: bool) -> Any:
        answer = self.browser.call(
            "script.evaluate",
            expression=expression,
            target={"context": self.context},
            awaitPromise=wait,
        )
        assert answer["type"] == "success", (expression, answer)
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
