"""iPXE in software: as much of it as a PureBoot script uses, with its rules where they surprise.

From iPXE's exec.c and script.c: a command that fails ends the script unless `||` follows it; `exit 1` in a script that
was chained makes the `chain` fail, unless it was `chain --replace`; settings are expanded in each word after the line
was split, so no value can add a word; `:uristring` escapes a setting's raw bytes up to the first zero (for `uuid` they
are sixteen octets), and leaves what may stand in a fragment, `&` and `+` among it.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from urllib.parse import quote, urljoin
from uuid import UUID

from pureboot.core.mac import MacAddress

_LEFT_AS_IT_IS = "!$&'()*+,;=:@/?"

Fetch = Callable[[str], Awaitable[bytes]]


class NotFetched(Exception):
    """A download that did not complete, for whatever reason: to the firmware they are one."""


@dataclass(frozen=True, slots=True)
class LocalDisk:
    drive: str


@dataclass(frozen=True, slots=True)
class NextDevice:
    """iPXE gave up, or was told to: the firmware tries its next boot device."""

    status: int


@dataclass(frozen=True, slots=True)
class Kernel:
    url: str
    arguments: tuple[str, ...]
    images: Mapping[str, bytes]

    def argument(self, name: str) -> str:
        """The value of `name=…` on the kernel's command line, or ""."""
        return next((word.removeprefix(f"{name}=") for word in self.arguments if word.startswith(f"{name}=")), "")


@dataclass(frozen=True, slots=True)
class San:
    url: str


@dataclass(frozen=True, slots=True)
class Hung:
    """A BIOS machine ran something as a program that was no script. Nobody comes back from that."""

    url: str


Outcome = LocalDisk | NextDevice | Kernel | San | Hung


@dataclass(frozen=True, slots=True)
class Hardware:
    """What firmware knows of its machine."""

    mac: MacAddress
    uuid: bytes = bytes(16)
    strings: Mapping[str, str] = field(default_factory=dict)

    def setting(self, name: str, kind: str) -> str:
        """`net0/mac:hexhyp`, `serial:uristring`…; a setting the machine does not have is empty."""
        raw = self._raw(name.rpartition("/")[2])
        match kind:
            case "hexhyp":
                return raw.hex("-")
            case "hexraw":
                return raw.hex()
            case "uristring":
                return quote(raw.partition(b"\0")[0], safe=_LEFT_AS_IT_IS)
            case _:
                return self._shown(name.rpartition("/")[2], raw)

    def _raw(self, name: str) -> bytes:
        match name:
            case "mac":
                return bytes.fromhex(self.mac.hyphenated.replace("-", ""))
            case "uuid":
                return self.uuid
            case _:
                return self.strings.get(name, "").encode()

    def _shown(self, name: str, raw: bytes) -> str:
        """In the type that the setting has of itself."""
        match name:
            case "mac":
                return raw.hex(":")
            case "uuid":
                return str(UUID(bytes=raw))
            case _:
                return raw.decode()


class _Stop(IntEnum):
    """Names and meaning of shell.h."""

    CONTINUE = 0
    COMMAND = 1
    SEQUENCE = 2


class _Left(Exception):
    """iPXE handed the machine over; no command returns."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class _Script:
    def __init__(self, url: str, text: str) -> None:
        self.url = url
        self.lines = [line.strip() for line in re.sub(r"\\\r?\n", "", text).splitlines()]
        self.at = 0
        self.replacement: _Script | None = None

    def go_to(self, label: str) -> bool:
        """The first line with that label; its own command, if any, runs next."""
        for number, line in enumerate(self.lines):
            if line.startswith(":") and line[1:].split(maxsplit=1)[:1] == [label]:
                self.at = number
                return True
        return False

    def next_command(self) -> str:
        line = self.lines[self.at]
        self.at += 1
        return line.partition(" ")[2] if line.startswith(":") else line


_SETTING = re.compile(r"\$\{([^{}:]*)(?::([^{}]*))?\}")
_SCRIPT = re.compile(rb"#![ig]pxe\s")


class Firmware:
    """One power-on of one machine. `screen` is what a person before it would have read."""

    def __init__(self, hardware: Hardware, fetch: Fetch, *, disk_boots: bool = True) -> None:
        self.screen: list[str] = []
        self._hardware = hardware
        self._fetch = fetch
        self._disk_boots = disk_boots
        self._images: dict[str, bytes] = {}
        self._kernel: tuple[str, tuple[str, ...]] | None = None
        self._stop = _Stop.CONTINUE
        self._commands: dict[str, Callable[[_Script, list[str]], Awaitable[int]]] = {
            "echo": self._echo,
            "goto": self._goto,
            "exit": self._exit,
            "chain": self._chain,
            "kernel": self._load_kernel,
            "initrd": self._load_initrd,
            "imgfree": self._imgfree,
            "boot": self._boot,
            "sanboot": self._sanboot,
        }

    async def boot(self, url: str) -> Outcome:
        try:
            return NextDevice(await self._execute(await self._script(url)))
        except NotFetched:
            return NextDevice(1)
        except _Left as left:
            return left.outcome

    async def _script(self, url: str) -> _Script:
        body = await self._fetch(url)
        if not _SCRIPT.match(body):
            raise _Left(Hung(url))
        return _Script(url, body.decode())

    async def _execute(self, script: _Script) -> int:
        status = 0
        while script.at < len(script.lines):
            status = await self._line(script, script.next_command())
            if self._stopped(_Stop.SEQUENCE) or status:
                break
        return await self._execute(script.replacement) if script.replacement else status

    async def _line(self, script: _Script, line: str) -> int:
        status, process = 0, True
        for words, terminator in _commands_of(line):
            if process:
                status = await self._command(script, [self._expand(word) for word in words])
            if self._stopped(_Stop.COMMAND):
                break
            process = {"||": status != 0, "&&": status == 0}.get(terminator, True)
        return status

    async def _command(self, script: _Script, words: list[str]) -> int:
        if not words:
            return 0
        if words[0] not in self._commands:
            self.screen.append(f"{words[0]}: command not found")
            return 1
        return await self._commands[words[0]](script, words[1:])

    def _expand(self, word: str) -> str:
        while match := _SETTING.search(word):
            value = self._hardware.setting(match[1], match[2] or "string")
            word = word[: match.start()] + value + word[match.end() :]
        return word

    def _stopped(self, stop: _Stop) -> bool:
        stopped = self._stop >= stop
        if self._stop <= stop:
            self._stop = _Stop.CONTINUE
        return stopped

    # The commands; each answers its exit status.

    async def _echo(self, script: _Script, words: list[str]) -> int:
        self.screen.append(" ".join(words))
        return 0

    async def _goto(self, script: _Script, words: list[str]) -> int:
        if not script.go_to(words[0]):
            return 1
        self._stop = _Stop.COMMAND
        return 0

    async def _exit(self, script: _Script, words: list[str]) -> int:
        self._stop = _Stop.SEQUENCE
        return int(words[0]) if words else 0

    async def _chain(self, script: _Script, words: list[str]) -> int:
        options, (url, *_) = _options(words)
        try:
            chained = await self._script(urljoin(script.url, url))
        except NotFetched:
            return self._failed(url)
        if "--replace" in options:
            script.replacement, self._stop = chained, _Stop.SEQUENCE
            return 0
        return await self._execute(chained)

    async def _load_kernel(self, script: _Script, words: list[str]) -> int:
        options, (url, *arguments) = _options(words)
        self._kernel = (url, tuple(arguments))
        return await self._load(script, url, options.get("--name", "kernel"))

    async def _load_initrd(self, script: _Script, words: list[str]) -> int:
        options, (url, *_) = _options(words)
        return await self._load(script, url, options.get("--name", url.rpartition("/")[2]))

    async def _load(self, script: _Script, url: str, name: str) -> int:
        try:
            self._images[name] = await self._fetch(urljoin(script.url, url))
        except NotFetched:
            return self._failed(url)
        return 0

    def _failed(self, url: str) -> int:
        self.screen.append(f"{url}... failed")
        return 1

    async def _imgfree(self, script: _Script, words: list[str]) -> int:
        self._images.clear()
        self._kernel = None
        return 0

    async def _boot(self, script: _Script, words: list[str]) -> int:
        if self._kernel is None:
            return 1
        raise _Left(Kernel(*self._kernel, images=dict(self._images)))

    async def _sanboot(self, script: _Script, words: list[str]) -> int:
        options, targets = _options(words)
        if targets:
            raise _Left(San(targets[0]))
        if self._disk_boots:
            raise _Left(LocalDisk(options.get("--drive", "0x80")))
        self.screen.append("Could not boot from SAN device")
        return 1


def _commands_of(line: str) -> list[tuple[list[str], str]]:
    """Each command's words, and what stands between it and the next one."""
    commands: list[tuple[list[str], str]] = []
    words: list[str] = []
    for word in line.split():
        if word.startswith("#"):
            break
        if word in ("||", "&&", ";"):
            commands.append((words, word))
            words = []
        else:
            words.append(word)
    return [*commands, (words, "")]


_WITH_VALUE = {"--name", "--drive", "--timeout"}


def _options(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Leading options and the words after them."""
    options: dict[str, str] = {}
    rest = list(words)
    while rest and rest[0].startswith("--"):
        option = rest.pop(0)
        options[option] = rest.pop(0) if option in _WITH_VALUE and rest else ""
    return options, rest
