"""HTTP for the commands: central's API for administrators, and the agent's on this host."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pureboot.core.errors import CentralUnavailable, PureBootError, SettingsError

if TYPE_CHECKING:
    import ssl

    import httpx2

DEFAULT_URL = "http://127.0.0.1:8000"
# Seconds without a byte; an upload or a download may take as long as it moves.
TIMEOUT = 30.0

# One JSON object, as the server sent it: the commands only show it.
Row = dict[str, Any]


class Remote:
    """Raises the PureBootError that an answer stands for."""

    def __init__(self, client: "httpx2.Client", nobody: str) -> None:
        self._client = client
        self._nobody = nobody

    def send(self, method: str, path: str, **arguments: Any) -> Any:
        """The answer's JSON, or None where it has no body."""
        with self._errors():
            answer = self._client.request(method, path, **arguments)
        _check(answer)
        try:
            return answer.json() if answer.content else None
        except ValueError:
            raise CentralUnavailable(f"What answers at {answer.url} is not PureBoot.") from None

    def get(self, path: str, **query: str) -> Any:
        return self.send("GET", path, params=query)

    def listing(self, path: str, **query: str) -> list[Row]:
        """All pages."""
        rows: list[Row] = []
        cursor: dict[str, str] = {}
        while True:
            page = self.get(path, **query, **cursor)
            rows += page["items"]
            if not page.get("next_cursor"):
                return rows
            cursor = {"cursor": page["next_cursor"]}

    @contextmanager
    def stream(self, path: str) -> Iterator["httpx2.Response"]:
        with self._errors(), self._client.stream("GET", path) as answer:
            if not answer.is_success:
                answer.read()
            _check(answer)
            yield answer

    @contextmanager
    def _errors(self) -> Iterator[None]:
        import httpx2

        try:
            yield
        except httpx2.ConnectError:
            raise CentralUnavailable(self._nobody) from None
        except httpx2.TransportError as error:
            raise CentralUnavailable(f"The answer did not come: {str(error) or type(error).__name__}.") from None


@contextmanager
def central() -> Iterator[Remote]:
    """Central as PUREBOOT_URL and PUREBOOT_TOKEN (or PUREBOOT_TOKEN_FILE) name it."""
    url = os.environ.get("PUREBOOT_URL") or DEFAULT_URL
    with _remote(f"{_checked(url)}/api/v1/", f"Central does not answer at {url}.", _token()) as remote:
        yield remote


@contextmanager
def anyone(url: str, ca_file: Path | None) -> Iterator[Remote]:
    """Central without a credential, for the one-time exchange of a token."""
    with _remote(f"{_checked(url)}/api/v1/", f"Central does not answer at {url}.", ca_file=ca_file) as remote:
        yield remote


@contextmanager
def site_agent(url: str, token: str) -> Iterator[Remote]:
    """The agent on this host."""
    nobody = f"No agent answers at {url}; start it with `pureboot agent run`."
    with _remote(f"{url}/", nobody, token, by_proxy=False) as remote:
        yield remote


@contextmanager
def _remote(
    base: str, nobody: str, token: str = "", *, by_proxy: bool = True, ca_file: Path | None = None
) -> Iterator[Remote]:
    import httpx2

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx2.Client(
        base_url=base, headers=headers, timeout=TIMEOUT, trust_env=by_proxy, verify=_trust(ca_file)
    ) as client:
        yield Remote(client, nobody)


def _trust(ca_file: Path | None) -> "ssl.SSLContext | bool":
    """Those of the system, or the one CA that is pinned."""
    if ca_file is None:
        return True
    import ssl

    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise SettingsError(f"ca_file names {ca_file}, which cannot be read as PEM: {error}.") from None


def _checked(url: str) -> str:
    """Without a slash at its end. Raises SettingsError for what is no address."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        hint = "Write it as http://HOST:PORT, in PUREBOOT_URL or --central-url."
        raise SettingsError(f"{url!r} is not the address of central.", hint=hint)
    return url.rstrip("/")


def _token() -> str:
    if token := os.environ.get("PUREBOOT_TOKEN"):
        return token.strip()
    if file := os.environ.get("PUREBOOT_TOKEN_FILE"):
        try:
            return Path(file).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"PUREBOOT_TOKEN_FILE names {file}, which cannot be read: {error}.") from None
    raise SettingsError(
        "There is no token for central.",
        hint="Set PUREBOOT_TOKEN, or PUREBOOT_TOKEN_FILE to central's admin-token file.",
    )


def _check(answer: "httpx2.Response") -> None:
    if answer.is_success:
        return
    from pureboot.wire.errors import from_answer

    try:
        body = answer.json()
    except ValueError:
        body = None
    error: PureBootError = from_answer(answer.status_code, body, None)
    raise error
