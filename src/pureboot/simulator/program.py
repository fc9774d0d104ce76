"""Real processes: started, frozen, killed as a power cut kills them, and started again on the same port and folder."""

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx2

# Seconds. A cold start of central on a busy two-core machine takes up to four.
START_PATIENCE = 30.0


class DidNotStart(Exception):
    """The program ended, or said nothing in time; the message carries the end of its log."""


class Program:
    """One `python …` process. It has a session of its own, so that Ctrl-C reaches only whoever started it."""

    def __init__(
        self, name: str, arguments: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = log
        self._command = [sys.executable, *arguments]
        self._environment = _clean_environment() | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def start_and_answer(self, client: httpx2.AsyncClient, url: str) -> float:
        """Start it and wait until `url` answers; the seconds that took."""
        began = time.monotonic()
        self.start()
        while time.monotonic() - began < START_PATIENCE:
            if not self.running:
                raise DidNotStart(f"{self.name} ended before it answered.\n{self.tail()}")
            if await _answers(client, url):
                return time.monotonic() - began
            await asyncio.sleep(0.05)
        raise DidNotStart(f"{self.name} did not answer within {START_PATIENCE:g} s.\n{self.tail()}")

    async def run(self) -> int:
        """Start it and wait for its end; its exit status."""
        self.start()
        return await asyncio.to_thread(self._wait)

    def kill(self) -> None:
        """`kill -9`: nothing in it runs any more, not even a `finally`."""
        self._signal(signal.SIGKILL)
        self._wait()

    def freeze(self) -> None:
        """Its sockets stay open and accept, and nothing is ever answered: what a dead WAN looks like."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def tail(self, lines: int = 20) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def _wait(self) -> int:
        return self._process.wait() if self._process else 0

    def _signal(self, number: signal.Signals) -> None:
        if self._process and self._process.poll() is None:
            self._process.send_signal(number)


def _clean_environment() -> dict[str, str]:
    """No setting of whoever runs this, and no proxy between two programs of one host."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("PUREBOOT_")}
    return kept | {"PYTHONUNBUFFERED": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


async def _answers(client: httpx2.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url, timeout=1.0)).is_success
    except httpx2.TransportError:
        return False


def free_port() -> int:
    """A port of the loopback address that nobody has at the moment, nor gets.

    It lies below those the system hands to clients: a machine's connection must not take the port of a program that
    was killed and is to come back on it.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
