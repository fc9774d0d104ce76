"""Answers machines: always with a script, always in time."""

import asyncio
import logging

from starlette.requests import Request

from pureboot.agent.connectivity import AlwaysOffline, ConnectivityMonitor
from pureboot.agent.offline_boot import NoScript, OfflineBootGenerator
from pureboot.core import ipxe
from pureboot.core.boot import LocalDisk
from pureboot.core.errors import Malformed
from pureboot.core.mac import MacAddress
from pureboot.core.node import LocalBoot

log = logging.getLogger(__name__)

NO_GENERATOR = "This agent has nothing to decide by."


class AgentBootService:
    """`budget`: seconds until a machine is answered, whatever hangs. `advertise_url`: the address scripts name; left
    empty, it is the one the machine reached the agent by."""

    def __init__(
        self,
        site_id: str = "",
        connectivity: ConnectivityMonitor | None = None,
        offline_generator: OfflineBootGenerator | None = None,
        *,
        budget: float = 1.0,
        advertise_url: str = "",
    ) -> None:
        self.site_id = site_id
        self.connectivity = connectivity or AlwaysOffline()
        self.offline_generator = offline_generator
        self.active = 0
        self._budget = budget
        self._advertise_url = advertise_url.rstrip("/")

    def base_url(self, request: Request) -> str:
        """This agent's address for the machine that asks, without a slash at its end."""
        return self._advertise_url or str(request.base_url).rstrip("/")

    async def get_boot_script(self, mac: str, request: Request) -> str:
        """Raises Malformed for what is no MAC, NoScript, and nothing else: what goes wrong inside becomes a boot of the
        local disk that names the reason."""
        if self.offline_generator is None:
            return ipxe.fallback(NO_GENERATOR)
        self.active += 1
        try:
            async with asyncio.timeout(self._budget):
                return await self.offline_generator.generate_script(
                    mac,
                    hardware_info=hardware_info(request),
                    base_url=self.base_url(request),
                )
        except (Malformed, NoScript):
            raise
        except TimeoutError:
            log.warning("no boot decision inside the budget")
            return self._fallback(mac, "This site's agent could not decide in time. Booting the local disk.")
        except Exception:  # a machine hangs for good on anything that is not a script
            log.exception("a boot decision failed")
            return self._fallback(mac, "This site's agent failed to decide. Booting the local disk.")
        finally:
            self.active -= 1

    def entry(self) -> str:
        """The script that chains every machine to its own."""
        return ipxe.entry(local_boot=self._local_boot)

    def has_no_script(self, mac: str) -> bool:
        """Whether the answer would be a 404 now. Raises Malformed."""
        return self.offline_generator is not None and self.offline_generator.has_no_script(mac)

    def _fallback(self, mac: str, reason: str) -> str:
        if generator := self.offline_generator:
            generator.boots.add(str(MacAddress.parse(mac)), None, LocalDisk(reason), generator.link())
        return ipxe.fallback(reason, self._local_boot)

    @property
    def _local_boot(self) -> LocalBoot:
        return self.offline_generator.local_boot if self.offline_generator else LocalBoot.SANBOOT


def hardware_info(request: Request) -> dict[str, str]:
    address = request.client.host if request.client else ""
    return {"ip_address": address, **request.query_params}
