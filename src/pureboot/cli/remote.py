"""HTTP for the commands: central's API for administrators, and the agent's on this host."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pureboot.core.errors import CentralUnavailable, Malformed, NotFound, PureBootError, SettingsError

if TYPE_CHECKING:
    import ssl

    import httpx2

DEFAULT_URL = "http://127.0.0.1:8000"
# Seconds without a byte; an upload or a download may take as long as it moves.
TIMEOUT = 30.0
_CREDENTIALS = re.compile(r"^(\w+://)?.*@", re.DOTALL)

# One JSON object, as the server sent it: the commands only show it.
Row = dict[str, Any]


class Answer(Row):
    """An object that came. To read a field that it lacks raises CentralUnavailable: a stranger may have answered."""

    def __missing__(self, name: str) -> Any:
        hint = "Is it PureBoot that answers, and of this version?"
        raise CentralUnavailable(f"The answer has no field {name!r}.", hint=hint)


@dataclass(frozen=True, slots=True)
class Nobody:
    """What is said where no connection stands; the cause follows. `ca_setting`: what names a CA that is trusted."""

    words: str
    hint: str = ""
    ca_setting: str = "SSL_CERT_FILE"


class Remote:
    """Raises the PureBootError that an answer stands for."""

    def __init__(self, client: "httpx2.Client", nobody: Nobody) -> None:
        self._client = client
        self._nobody = nobody

    def send(self, method: str, path: str, **arguments: Any) -> Row:
        """The object that is the answer; an empty one where it has no body."""
        with self._errors():
            answer = self._client.request(method, path, **arguments)
        _check(answer)
        body = _object(answer) if answer.content else Answer()
        if body is None:
            raise _stranger(answer.url)
        return body

    def get(self, path: str, **query: str) -> Row:
        return self.send("GET", path, params=query)

    def page(self, path: str, **query: str) -> Row:
        """What has a list of objects as its `items`."""
        page = self.get(path, **query)
        items = page["items"]
        if not isinstance(items, list) or not all(isinstance(row, Answer) for row in items):
            raise _stranger(self._client.base_url.join(path))
        return page

    def listing(self, path: str, **query: str) -> list[Row]:
        """All pages."""
        rows: list[Row] = []
        cursor: dict[str, str] = {}
        while True:
            page = self.page(path, **query, **cursor)
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
        except httpx2.ConnectError as error:
            raise _unreached(self._nobody, error) from None
        except httpx2.RequestError as error:
            raise CentralUnavailable(f"The answer did not come: {str(error) or type(error).__name__}.") from None
        except (httpx2.InvalidURL, UnicodeError) as error:
            raise SettingsError(f"This cannot be asked: {error}.") from None


@contextmanager
def central() -> Iterator[Remote]:
    """Central as PUREBOOT_URL and PUREBOOT_TOKEN (or PUREBOOT_TOKEN_FILE) name it."""
    url = os.environ.get("PUREBOOT_URL") or DEFAULT_URL
    nobody = Nobody(f"Central cannot be reached at {shown(url)}")
    with _remote(f"{_checked(url)}/api/v1/", nobody, _token()) as remote, _no_agent(remote, url):
        yield remote


@contextmanager
def anyone(url: str, ca_file: Path | None) -> Iterator[Remote]:
    """Central without a credential, for the one-time exchange of a token."""
    ca_setting = "`ca_file` of agent.toml, or PUREBOOT_AGENT__CA_FILE"
    nobody = Nobody(f"Central cannot be reached at {shown(url)}", ca_setting=ca_setting)
    with _remote(f"{_checked(url)}/api/v1/", nobody, ca_file=ca_file) as remote, _no_agent(remote, url):
        yield remote


@contextmanager
def _no_agent(remote: Remote, url: str) -> Iterator[None]:
    """What an agent says in central's place is no help: it has few of its addresses."""
    try:
        yield
    except PureBootError as error:
        if error.code not in (NotFound.code, Malformed.code) or not _is_agent(remote, url):
            raise
        hint = "Name central in PUREBOOT_URL or --central-url; it listens on port 8000 where nothing else is set."
        raise CentralUnavailable(f"What answers at {shown(url)} is a site's agent, not central.", hint=hint) from None


def _is_agent(remote: Remote, url: str) -> bool:
    with suppress(PureBootError):
        return remote.get(f"{_checked(url)}/health").get("product") == "pureboot-agent"
    return False


@contextmanager
def site_agent(url: str, token: str) -> Iterator[Remote]:
    """The agent on this host."""
    nobody = Nobody(f"No agent answers at {url}", hint="Start it with `pureboot agent run`.")
    with _remote(f"{url}/", nobody, token, by_proxy=False) as remote:
        yield remote


@contextmanager
def _remote(
    base: str, nobody: Nobody, token: str = "", *, by_proxy: bool = True, ca_file: Path | None = None
) -> Iterator[Remote]:
    import httpx2

    headers, trusted = _bearer(token), _trust(ca_file)
    try:
        client = httpx2.Client(base_url=base, headers=headers, timeout=TIMEOUT, trust_env=by_proxy, verify=trusted)
    except (httpx2.InvalidURL, ValueError, OSError, ImportError) as error:
        hint = "See HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR."
        raise SettingsError(f"The environment names what cannot be used: {error}.", hint=hint) from None
    with client:
        yield Remote(client, nobody)


def _unreached(nobody: Nobody, error: Exception) -> CentralUnavailable:
    from pureboot.wire.causes import cause_of

    cause = cause_of(error, nobody.ca_setting)
    said = f"{nobody.words}: {cause.words}." if cause else f"{nobody.words}."
    return CentralUnavailable(said, hint=(cause and cause.hint) or nobody.hint)


def _bearer(token: str) -> dict[str, str]:
    """Raises SettingsError for what no header carries, without showing it."""
    if not (token.isascii() and token.isprintable()):
        hint = "See PUREBOOT_TOKEN, or the file `admin-token` that it came from."
        raise SettingsError("The token is none of PureBoot's: it is not one line of ASCII.", hint=hint)
    return {"Authorization": f"Bearer {token}"} if token else {}


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
        host = (parts.hostname or "").encode("idna")  # as the resolver will
        clean = url.isprintable() and " " not in url
        good = parts.scheme in ("http", "https") and bool(host) and parts.port != 0 and clean
    except ValueError:
        good = False
    if not good:
        hint = "Write it as http://HOST:PORT, in PUREBOOT_URL or --central-url."
        raise SettingsError(f"{shown(url)!r} is not the address of central.", hint=hint)
    return url.rstrip("/")


def shown(url: str) -> str:
    """An address, or what should be one, as errors name it: without what comes before its @, for that is secret."""
    return _CREDENTIALS.sub(r"\1", url)


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

    error: PureBootError = from_answer(answer.status_code, _object(answer), None)
    raise error


def _object(answer: "httpx2.Response") -> Answer | None:
    """None for what is no JSON object."""
    try:
        body = answer.json(object_hook=Answer)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, Answer) else None


def _stranger(url: "httpx2.URL") -> CentralUnavailable:
    return CentralUnavailable(f"What answers at {url.copy_with(userinfo=b'')} is not PureBoot.")
