"""The one place that reads a MAC address."""

import re
from dataclasses import dataclass

from pureboot.core.errors import Malformed

_SPELLINGS = re.compile(
    r"[0-9a-f]{12}"
    r"|[0-9a-f]{2}(?::[0-9a-f]{2}){5}"
    r"|[0-9a-f]{2}(?:-[0-9a-f]{2}){5}"
    r"|[0-9a-f]{4}(?:\.[0-9a-f]{4}){2}"
)
# Firmware without an address of its own sends one of these; they would be one node for many machines.
_NOBODY = {"000000000000", "ffffffffffff"}


@dataclass(frozen=True, slots=True, order=True)
class MacAddress:
    """Six octets, written `52:54:00:aa:bb:01`. Build it with `parse`."""

    value: str

    @classmethod
    def parse(cls, text: str) -> "MacAddress":
        """Accepts `:`, `-`, Cisco's dots and bare hex in either case (RFC 7042, section 2.1, and iPXE's `hexhyp`).

        Raises Malformed; the message quotes at most 40 characters of a text that came from a machine.
        """
        lowered = text.strip().lower()
        digits = re.sub(r"[:.-]", "", lowered)
        if not _SPELLINGS.fullmatch(lowered) or digits in _NOBODY:
            raise Malformed(
                f"{text[:40]!r} is not the MAC address of a machine.",
                code="malformed_mac",
                hint="Write six octets, such as 52:54:00:aa:bb:01.",
            )
        return cls(":".join(digits[i : i + 2] for i in range(0, 12, 2)))

    def __str__(self) -> str:
        return self.value

    @property
    def hyphenated(self) -> str:
        return self.value.replace(":", "-")
