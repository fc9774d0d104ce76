"""Who may look at the site: whoever sits on the agent's own machine, or shows the site's admin token."""

import hashlib
import hmac
import os
import secrets
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from starlette.requests import Request

from pureboot.core.errors import Forbidden, Unauthenticated


class People(Protocol):
    """Lets people in, and machines not. Raises Unauthenticated or Forbidden."""

    def admit(self, request: Request) -> None: ...

    def check_own_page(self, request: Request) -> None: ...


class SiteAdmins:
    """The token lies in `DIR/admin-token` (0600), made at the first start."""

    def __init__(self, data_dir: Path) -> None:
        self._digest = hashlib.sha256(_token(data_dir / "admin-token").encode()).digest()

    def admit(self, request: Request) -> None:
        """Raises Unauthenticated or Forbidden."""
        if _is_loopback(request):
            if request.method not in ("GET", "HEAD"):
                self.check_own_page(request)
            return
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated(
                "This page is for people of this site.",
                hint="Ask from the agent's own machine, or send its admin token (DATA_DIR/admin-token).",
            )
        if not hmac.compare_digest(hashlib.sha256(token.strip().encode()).digest(), self._digest):
            raise Forbidden("This is not the site's admin token.", hint="It lies in DATA_DIR/admin-token.")

    def check_own_page(self, request: Request) -> None:
        """Whoever sits at the agent's host is trusted; a page that they have open beside ours is not. Raises
        Forbidden."""
        if _is_of_another_page(request):
            raise Forbidden(
                "Another page asked for this in your browser.", code="not_our_page", hint="Use the agent's own page."
            )


def _is_of_another_page(request: Request) -> bool:
    """Whether a browser asks on behalf of a page that is not ours. Every browser of these years says so in one of two
    ways; a command says nothing."""
    if site := request.headers.get("sec-fetch-site"):
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is not None and origin != f"{request.url.scheme}://{request.url.netloc}"


def _is_loopback(request: Request) -> bool:
    """A request from this host. A browser that was lured here (DNS rebinding) names another host, and is none."""
    try:
        from_here = request.client is not None and ip_address(request.client.host).is_loopback
    except ValueError:
        return False
    host = request.url.hostname or ""
    return from_here and (host == "localhost" or _is_address(host))


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _token(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        token = secrets.token_urlsafe(32)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token + "\n")
        return token
