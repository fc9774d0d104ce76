"""Answer files, rendered in a process of their own."""

import asyncio
import contextlib
import json
import logging
import sys

from pureboot.core.errors import Busy, Invalid
from pureboot.rendering.language import FILE_BYTES, Values

log = logging.getLogger(__name__)

# Seconds for one file, and for the process to start on a busy host.
PATIENCE = 2.0
STARTS_WITHIN = 15.0
# After so many seconds without work its 25 MB are given back.
IDLE = 60.0


class Renderer:
    """One file at a time, in the order of asking; each takes a millisecond or so. The process is started when it is
    first needed. Seconds, all of them."""

    def __init__(self, *, patience: float = PATIENCE, idle: float = IDLE) -> None:
        self._patience, self._idle = patience, idle
        self._process: asyncio.subprocess.Process | None = None
        self._one_at_a_time = asyncio.Lock()
        self._ending: set[asyncio.Future[int]] = set()
        self._rest: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._process.pid if self._process else None

    async def render(self, text: str, values: Values) -> str:
        """Raises Invalid where the template is at fault: what it says, how long it takes, how much it needs. Raises
        Busy where the host is."""
        async with self._one_at_a_time:
            if self._rest:
                self._rest.cancel()
            try:
                answer = await self._ask(json.dumps({"text": text, "values": values}))
            finally:
                self._rest = asyncio.get_running_loop().call_later(self._idle, self._kill)
        if "text" in answer:
            return answer["text"]
        raise Invalid(answer["error"], code=answer["code"], hint=answer["hint"])

    async def aclose(self) -> None:
        if self._rest:
            self._rest.cancel()
        self._kill()
        await asyncio.gather(*self._ending)

    async def _ask(self, request: str) -> dict[str, str]:
        process = await self._started()
        assert process.stdin
        assert process.stdout
        line = b""
        try:
            process.stdin.write(request.encode() + b"\n")
            async with asyncio.timeout(self._patience):
                line = await process.stdout.readline()
        except TimeoutError:
            log.error("a template did not end and was stopped")
            raise Invalid(
                f"The template takes longer than {self._patience:g} s.",
                code="invalid_template",
                hint="Look for a loop that does not end.",
            ) from None
        except (OSError, ValueError) as error:
            raise Busy(f"The template could not be rendered: {error}.", hint="Ask again.") from None
        finally:
            if not line.endswith(b"\n"):
                self._kill()
        if not line:
            raise Invalid("The template needs too much time or memory.", code="invalid_template")
        answer: dict[str, str] = json.loads(line)
        return answer

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        ready = b""
        try:
            async with asyncio.timeout(STARTS_WITHIN):
                self._process = process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "pureboot.rendering.child"),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    limit=8 * FILE_BYTES,
                )
                assert process.stdin
                assert process.stdout
                # An empty file: what starting takes must not count against the first one.
                process.stdin.write(b'{"text": "", "values": {}}\n')
                ready = await process.stdout.readline()
                return process
        except (TimeoutError, OSError) as error:
            raise Busy(f"Templates cannot be rendered now: {error!r}.", hint="Ask again.") from None
        finally:
            # Whoever leaves before that answer has come must not leave it to the next.
            if not ready:
                self._kill()

    def _kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            end = asyncio.ensure_future(self._process.wait())
            self._ending.add(end)
            end.add_done_callback(self._ending.discard)
        self._process = None
