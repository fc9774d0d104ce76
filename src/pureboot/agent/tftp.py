"""What the site serves over TFTP: its boot loaders, and the script that iPXE looks for beside them."""

import logging
from collections.abc import Callable
from ipaddress import ip_address

from pureboot.agent.cache.content_cache import ContentCache
from pureboot.agent.content import ContentFetcher
from pureboot.core import ipxe
from pureboot.core.errors import Busy, Malformed, NotFound, SettingsError
from pureboot.core.node import LocalBoot
from pureboot.tftp.served import Asked, OpenFile, Served, Text
from pureboot.tftp.server import TftpServer
from pureboot.wire.messages import ContentCategory

log = logging.getLogger(__name__)

# iPXE for UEFI asks for it before anything else, where it came from (since 2.0).
AUTOEXEC = "autoexec.ipxe"


class BootLoaders:
    """Content of the category `bootloaders` by its plain name, or as firmware writes it: with a slash before it, with
    the category before it, with backslashes.

    What the site holds is served whether or not central has a newer version: an older loader boots, a wait for the WAN
    does not. `advertise_url` is the agent's HTTP address for machines; empty: by the address that the machine asked, on
    `http_port`. `local_boot`: the site's.
    """

    def __init__(
        self,
        cache: ContentCache,
        fetcher: ContentFetcher,
        *,
        advertise_url: str,
        http_port: int,
        local_boot: Callable[[], LocalBoot] = lambda: LocalBoot.SANBOOT,
    ) -> None:
        self._cache, self._fetcher, self._local_boot = cache, fetcher, local_boot
        self._advertise_url, self._http_port = advertise_url.rstrip("/"), http_port

    async def find(self, asked: Asked) -> Served | None:
        name = _plain(asked.name)
        if name == AUTOEXEC:
            return Text(ipxe.entry(self._url(asked.local), self._local_boot()).encode())
        try:
            return await self._loader(f"{ContentCategory.BOOTLOADERS}/{name}")
        except (NotFound, Malformed):
            return None

    async def _loader(self, name: str) -> Served:
        """Raises NotFound, Malformed, Busy."""
        self._fetcher.document(name)
        file = await self._cache.get(name) or await self._fetcher.fetch(name, first=True)
        try:
            return OpenFile(file.path)
        except OSError as error:
            raise Busy(f"{name} cannot be opened: {error.strerror}.") from None

    def _url(self, local: str) -> str:
        host = f"[{local}]" if ip_address(local).version == 6 else local
        return self._advertise_url or f"http://{host}:{self._http_port}"


def _plain(name: str) -> str:
    return name.replace("\\", "/").lstrip("/").removeprefix(f"{ContentCategory.BOOTLOADERS}/")


class TftpService:
    """The server, or the reason why there is none: a site without the right to its port still serves HTTP."""

    def __init__(self, server: TftpServer, *, wanted: bool) -> None:
        self.server = server
        self.state = "stopped" if wanted else "off"
        self._wanted = wanted

    @property
    def problem(self) -> str:
        """For people; empty if there is none."""
        return f"TFTP is not served. {self.state.removeprefix('failed: ')}" if self.state.startswith("failed") else ""

    async def start(self) -> None:
        if not self._wanted:
            return
        try:
            await self.server.start()
        except SettingsError as error:
            self.state = f"failed: {error.message}"
            log.error("TFTP is not served, everything else is: %s %s", error.message, error.hint)
        else:
            self.state = "running"
            log.info("TFTP is served on port %s", self.server.port)

    async def stop(self) -> None:
        if self.state == "running":
            await self.server.stop()
            self.state = "stopped"
