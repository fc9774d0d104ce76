"""The settings of central. Each field says its meaning, its unit and why its default is what it is."""

import re
import ssl
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from pureboot.config.loading import Settings

MIB = 1024**2

# By OpenSSL's reasons; it has none for what it cannot read.
_KEY_TROUBLE: dict[str | None, str] = {
    None: "it holds no key in PEM that can be read without a passphrase",
    "KEY_VALUES_MISMATCH": "it is not the key of tls_certfile",
    "NO_CERTIFICATE_ASSIGNED": "it is not the key of tls_certfile",
}


class CentralSettings(Settings):
    model_config = SettingsConfigDict(env_prefix="PUREBOOT_CENTRAL__")
    file_name: ClassVar[str] = "central.toml"

    host: str = Field(
        default="127.0.0.1", min_length=1, description="Address to listen on; only this machine, until TLS is set up."
    )
    port: int = Field(default=8000, ge=0, le=65535, description="HTTP port; 0 takes a free one.")
    data_dir: Path = Field(
        default=Path("pureboot-central"),
        description="Folder of the database, the content and the admin token; relative, so that a first try needs no "
        "root.",
    )
    database_url: str = Field(
        default="",
        repr=False,
        description="Database, as sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME; empty: central.db in "
        "data_dir.",
    )
    tls_certfile: Path | None = Field(default=None, description="Certificate chain (PEM); none: plain HTTP.")
    tls_keyfile: Path | None = Field(
        default=None, description="Private key (PEM, without a passphrase) of the certificate."
    )

    max_body_bytes: int = Field(
        default=8 * MIB, gt=0, description="Bytes of a request's body but for content; a push of 1,000 items fits."
    )
    max_connections: int = Field(
        default=2048, ge=1, description="Connections at once; beyond, 503. Twice a thousand agents fit."
    )

    max_pushes: int = Field(
        default=16,
        ge=1,
        description="Pushes worked on at once; beyond, 503 with a Retry-After. Keeps live writes quick.",
    )
    session_lease: int = Field(
        default=90,
        ge=1,
        description="Seconds an agent may be silent and keep its right to write; three looks at central, by default.",
    )
    tombstone_days: float = Field(
        default=30,
        gt=0,
        description="Days that the feed tells of deletions; an agent that was away for longer reads everything anew.",
    )

    session_idle: float = Field(
        default=8, gt=0, description="Hours a person stays signed in without doing anything; a working day."
    )
    session_longest: float = Field(
        default=72, gt=0, description="Hours after which a person signs in again in any case; over a weekend."
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severity that is logged; info is a line for what an operator cares about."
    )
    log_format: Literal["console", "json"] = Field(
        default="console", description="`console` for eyes, `json` (a line an event) for collectors."
    )

    @field_validator("database_url")
    @classmethod
    def _is_a_database(cls, url: str) -> str:
        """What is raised must not show any of it: it holds a password."""
        from sqlalchemy import make_url  # an agent, which reads this module too, has no use for it

        if url and not re.fullmatch(r"(sqlite:///|postgresql(\+psycopg|\+asyncpg)?://).+", url):
            raise ValueError("it begins neither with sqlite:/// nor with postgresql://")
        try:
            host = make_url(url).host if url else ""
        except ValueError:
            raise ValueError("its port is no number") from None
        if "@" in (host or ""):
            raise ValueError("its password holds an @, which is written as %40 there")
        return url

    @field_validator("tls_certfile", "tls_keyfile")
    @classmethod
    def _is_readable(cls, path: Path | None) -> Path | None:
        try:
            if path:
                path.open("rb").close()
        except OSError as error:
            raise ValueError(f"it cannot be read: {error.strerror}") from None
        return path

    @field_validator("tls_certfile")
    @classmethod
    def _is_a_certificate(cls, path: Path | None) -> Path | None:
        try:
            if path:
                ssl.create_default_context(cafile=path)
        except ssl.SSLError:
            raise ValueError("it holds no certificate in PEM") from None
        return path

    @field_validator("tls_keyfile")
    @classmethod
    def _is_its_key(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        certificate = info.data.get("tls_certfile")
        try:
            if path and certificate:
                # Without the password OpenSSL would ask whoever sits at the terminal.
                ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, path, password="")
        except ssl.SSLError as error:
            raise ValueError(
                _KEY_TROUBLE.get(error.reason, f"OpenSSL refuses it with tls_certfile: {error.reason}")
            ) from None
        return path

    @model_validator(mode="after")
    def _certificate_and_key(self) -> Self:
        if (self.tls_certfile is None) != (self.tls_keyfile is None):
            raise ValueError("tls_certfile and tls_keyfile belong together")
        return self
