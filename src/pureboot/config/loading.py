"""Settings from flags, environment and a TOML file, in this order, and one sentence for what is wrong in them."""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableVariable

from pureboot.core.errors import SettingsError


class Settings(BaseSettings):
    """What the settings of every program share. `file_name` is looked for in `data_dir` where no file is named."""

    model_config = SettingsConfigDict(extra="forbid", env_ignore_empty=True, frozen=True)
    file_name: ClassVar[str]

    data_dir: Path

    @classmethod
    def variable(cls, name: str) -> str:
        """The environment variable that sets `name`."""
        return f"{cls.model_config.get('env_prefix', '')}{name}".upper()


S = TypeVar("S", bound=Settings)


def load(kind: type[S], *, file: Path | None = None, **flags: Any) -> S:
    """A flag that is None was not given. Raises SettingsError naming the setting and where its value came from."""
    given = {name: value for name, value in flags.items() if value is not None}
    in_environment = _names_in_environment(kind)
    path = file or _usual_file(kind, given)
    in_file = _read(kind, path) if path else {}
    try:
        return kind(**{name: value for name, value in in_file.items() if name not in in_environment} | given)
    except UnreadableVariable as error:
        raise SettingsError(f"The environment cannot be read: {error}.") from None
    except ValidationError as error:
        raise _explained(error, kind, given, in_environment, path) from None


def _names_in_environment(kind: type[Settings]) -> set[str]:
    prefix = kind.variable("")
    names = {
        variable.upper().removeprefix(prefix).lower(): variable
        for variable, value in os.environ.items()
        if variable.upper().startswith(prefix) and value
    }
    for name, variable in names.items():
        if name not in kind.model_fields:
            hint = _hint(variable, map(kind.variable, kind.model_fields))
            raise SettingsError(f"The environment variable {variable} is not a setting.", hint=hint)
    return set(names)


def _usual_file(kind: type[Settings], given: Mapping[str, Any]) -> Path | None:
    default = kind.model_fields["data_dir"].default
    path = Path(given.get("data_dir") or os.environ.get(kind.variable("data_dir")) or default) / kind.file_name
    return path if path.exists() else None


def _read(kind: type[Settings], path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"The settings file {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The settings file {path} is not TOML: {error}.") from None
    for name in values:
        if name not in kind.model_fields:
            raise SettingsError(f"{name!r} in {path} is not a setting.", hint=_hint(name, kind.model_fields))
    return values


def _hint(wrong: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(wrong, known, n=1)
    return f"Did you mean {near[0]}?" if near else "docs/settings.md lists them all."


def _explained(
    error: ValidationError, kind: type[Settings], given: Mapping[str, Any], in_environment: set[str], file: Path | None
) -> SettingsError:
    """No value of a field that is kept out of its `repr`, nor of all of them, is in it: secrets are among those."""
    problem = error.errors(include_url=False)[0]
    wrong = problem["msg"].removeprefix("Value error, ").rstrip(".")
    if not problem["loc"]:
        return SettingsError(f"The settings do not fit together: {wrong}.")
    name = str(problem["loc"][0])
    if name in given:
        source = f"the flag --{name.replace('_', '-')}"
    elif name in in_environment:
        source = f"the environment variable {kind.variable(name)}"
    else:
        source = str(file or "the program")
    field = kind.model_fields[name]
    value = f" = {_without_password(str(problem['input']))[:80]!r}" if field.repr else ""
    return SettingsError(
        f"The setting {name}{value} from {source} is wrong: {wrong[:1].lower()}{wrong[1:]}.",
        hint=field.description or "",
    )


def _without_password(value: str) -> str:
    """Whoever is named in an address stands before its last `@`."""
    return re.sub(r"//.*@", "//***@", value, flags=re.DOTALL)
