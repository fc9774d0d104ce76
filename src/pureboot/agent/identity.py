"""Who this agent is: written once by `pureboot agent init`, read at every start."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from pureboot.core.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Identity:
    agent_id: str
    site_id: str
    central_url: str
    credential: str

    def __repr__(self) -> str:  # the credential stays out of logs
        return f"Identity(agent_id={self.agent_id!r}, site_id={self.site_id!r}, central_url={self.central_url!r})"


def save(data_dir: Path, identity: Identity) -> Path:
    """Readable by its owner only from the first byte on; a crash leaves the old one or the new one."""
    path = _path(data_dir)
    _make_folder(path.parent)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(asdict(identity), file)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    return path


def check_writable(data_dir: Path) -> None:
    """Raises SettingsError where `save` could not."""
    try:
        _make_folder(data_dir)
        probe = data_dir / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SettingsError(
            f"data_dir {data_dir} cannot be written: {error.strerror}.", hint="Choose another with --data-dir."
        ) from None


def load(data_dir: Path) -> Identity:
    path = _path(data_dir)
    try:
        return Identity(**json.loads(path.read_text()))
    except FileNotFoundError:
        raise SettingsError(
            f"There is no agent in data_dir {data_dir}.",
            hint="Run `pureboot agent init` first, or name the folder it wrote with --data-dir.",
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(
            f"The agent's identity {path} cannot be read: {error}.",
            hint="Run `pureboot agent init` again; what the agent holds in agent.db is kept.",
        ) from None


def _make_folder(data_dir: Path) -> None:
    """The credential, and what the site's machines are told, are nobody else's. One that is there keeps its mode."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)


def _path(data_dir: Path) -> Path:
    return data_dir / "identity.json"
