"""Why a connection does not stand, in words. Libraries say it in the errors beneath the one that they raise."""

import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

# OpenSSL's numbers for certificates that do not hold.
_NOT_YET, _EXPIRED = 9, 10
_UNKNOWN_ISSUER = 18, 19, 20, 21
_OTHER_NAME = 62, 63, 64
# Its reasons for an answer that is no TLS; which of them, the answer's first bytes say.
_NO_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"}


@dataclass(frozen=True, slots=True)
class Cause:
    """`words`: a clause without its end. `lasts`: somebody is there, and it does not end before a person mends it."""

    words: str
    hint: str = ""
    lasts: bool = False


def cause_of(error: BaseException, ca_setting: str) -> Cause | None:
    """None for what is not known. `ca_setting`: where the CA that is to be trusted can be named."""
    for each in _beneath(error):
        match each:
            case ssl.SSLCertVerificationError():
                said = each.verify_message.rstrip(".")
                words = f"its certificate is not trusted ({said[:1].lower()}{said[1:]})"
                return Cause(words, _about_certificate(each.verify_code, ca_setting), lasts=True)
            case ssl.SSLError(reason=reason) if reason in _NO_TLS:
                return Cause("what listens there does not speak TLS", "Is it http:// instead of https://?", lasts=True)
            case ssl.SSLError(reason=str(reason)):
                return Cause(f"TLS failed ({reason.replace('_', ' ').lower()})", lasts=True)
            case socket.gaierror():
                return Cause(f"its host name is not found ({each.strerror})")
            case ConnectionRefusedError():
                return Cause("the connection is refused")
            case OSError(errno=int(number)):
                return Cause(os.strerror(number))
    return None


def _about_certificate(code: int, ca_setting: str) -> str:
    if code in _UNKNOWN_ISSUER:
        return f"If a CA of your own has signed it, name that CA's PEM file in {ca_setting}."
    if code in (_NOT_YET, _EXPIRED):
        return "Renew it there, or set this host's clock."
    return "Use a name or an address that it is for." if code in _OTHER_NAME else ""


def _beneath(error: BaseException | None) -> Iterator[BaseException]:
    """With the error itself, the outermost first; of several addresses each has one."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for each in error.exceptions:
                yield from _beneath(each)
        error = error.__cause__ or error.__context__
