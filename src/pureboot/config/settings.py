"""The settings of both programs; those of a site agent stand here, central's in `central`.

Each field says its meaning, its unit and why its default is what it is.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Literal

from cronsim import CronSim, CronSimError
from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from pureboot.config.central import CentralSettings
from pureboot.config.loading import Settings

__all__ = ["AgentSettings", "CentralSettings"]

GIB = 1024**3
MIB = 1024**2
KIB = 1024


class AgentSettings(Settings):
    model_config = SettingsConfigDict(env_prefix="PUREBOOT_AGENT__")
    file_name: ClassVar[str] = "agent.toml"

    # The site

    central_url: str = Field(
        default="", pattern=r"^(https?://\S+)?$", description="Address of central; empty: the one `agent init` wrote."
    )
    site_id: str = Field(default="", description="Id of this agent's site; empty: the one `agent init` wrote.")
    data_dir: Path = Field(
        default=Path("pureboot-agent"),
        description="Folder of the identity, agent.db and the cache; relative, so that a first try needs no root.",
    )
    ca_file: Path | None = Field(
        default=None, description="The only CA (a PEM file) trusted for central; none: those of the system."
    )

    # What machines reach

    host: str = Field(default="0.0.0.0", description="Address to listen on; all, since machines come from the LAN.")
    port: int = Field(default=8080, ge=0, le=65535, description="HTTP port; 0 takes a free one.")
    tftp_port: int = Field(
        default=69,
        ge=0,
        le=65535,
        description="TFTP port, 69 being the one firmware asks; 0: no TFTP. Where it cannot be had, the agent's "
        "health says so, and HTTP is served all the same.",
    )
    advertise_url: str = Field(
        default="",
        pattern=r"^(https?://\S+)?$",
        description="Address that boot scripts name; empty: the one the machine reached the agent by.",
    )

    # Central and the link to it

    heartbeat_interval: int = Field(
        default=60,
        gt=0,
        le=86_400,
        description="Seconds between heartbeats; central calls an agent offline after five.",
    )
    connectivity_check_interval: int = Field(
        default=30, gt=0, description="Seconds between two looks at central's health; an outage costs no boot anything."
    )
    connectivity_timeout: float = Field(
        default=5.0, gt=0, description="Seconds a look at central's health may take; slow satellite links need a few."
    )
    connectivity_failure_threshold: int = Field(
        default=3, ge=1, description="Failed looks in a row that mean offline, so that one lost packet means nothing."
    )
    stale_after: float = Field(
        default=300.0,
        gt=0,
        description="Seconds without a complete pass over central's feed after which an online agent says STALE; ten "
        "long polls.",
    )

    # Boots

    boot_budget: float = Field(
        default=1.0, gt=0, description="Seconds within which a boot script is answered, whatever hangs; firmware waits."
    )
    write_confirm_budget: float = Field(
        default=1.0,
        ge=0,
        description="Seconds a report waits for central's word before it is answered as queued; it is safe either way.",
    )
    offline_default_action: Literal["local", "discovery", "last_known"] = Field(
        default="local", description="What an unknown machine gets while offline; its own disk harms nothing."
    )
    offline_install_max_age: float = Field(
        default=86400.0,
        gt=0,
        description="Seconds an approval may be old to start an install offline or STALE; a day covers a night's "
        "outage.",
    )
    registrations_per_minute: int = Field(
        default=1000,
        ge=1,
        description="New machines taken in a minute; the rest boot their disk unrecorded. A full rack row fits.",
    )

    # The queue of what central does not know yet

    queue_batch_size: int = Field(
        default=10,
        ge=1,
        description="Items of the first push of a drain, unless central turned the one before away; it doubles while "
        "central answers quickly.",
    )
    queue_batch_max: int = Field(
        default=200, ge=1, le=1000, description="Most items of one push; more no longer makes a drain faster."
    )
    queue_retry_delay: float = Field(
        default=5.0, gt=0, description="Seconds, the base of the backoff between two tries; random up to 60 s."
    )
    queue_max_retries: int = Field(
        default=3,
        ge=1,
        description="Times central may put an item off before it counts as failed; lost links never count.",
    )
    sent_retention_days: int = Field(
        default=7,
        ge=0,
        le=3650,
        description="Days settled items are kept for a look back; a week covers a long week-end.",
    )

    sent_max_bytes: int = Field(
        default=64 * MIB,
        ge=0,
        description="Bytes of settled items kept; a central restored from a backup hears them again. 64 MiB are some "
        "250,000 reports.",
    )
    queue_max_items: int = Field(
        default=100_000,
        ge=20,
        description="Items that may wait; at 80 % progress is only counted, at 95 % only changes of state and failures "
        "are taken. A month without central for a few hundred machines. What comes back for a restored central is not "
        "counted.",
    )
    queue_max_bytes: int = Field(
        default=256 * MIB, ge=MIB, description="Bytes of reports that may wait; the same steps as for their number."
    )
    disk_floor_bytes: int = Field(
        default=512 * MIB,
        ge=0,
        description="Free bytes (of a small disk: 5 %) below which nothing new is stored; settling needs some room.",
    )

    # Content

    cache_max_bytes: int = Field(
        default=50 * GIB,
        ge=0,
        description="Bytes of content kept on disk; 50 GiB hold a dozen installers. Where the site's own limit "
        "(`cache_max_size_gb`) is smaller, that counts; and in any case content leaves twice the disk's floor free.",
    )
    sync_schedule: str = Field(
        default="",
        description="When content is fetched that no boot and no approved install needs: a cron expression in UTC, "
        "such as `0 2 * * *`; empty: as soon as central has it.",
    )
    bandwidth_limit: int = Field(
        default=0,
        ge=0,
        description="Bytes a second that all downloads together may take of the line to central; 0: no limit. What a "
        "machine waits for goes first.",
    )
    verify_rate: int = Field(
        default=8 * MIB,
        ge=0,
        description="Bytes a second at which kept content is read again, once a day, and compared with its digest; 0: "
        "never. Slow enough for an old disk to serve boots meanwhile. What has another time than it had, as in a copy "
        "of the folder, is read before it is served all the same.",
    )

    @field_validator("sync_schedule")
    @classmethod
    def _is_cron(cls, expression: str) -> str:
        if expression:
            try:
                next(CronSim(expression, datetime.now(UTC)))
            except (CronSimError, StopIteration):
                raise ValueError(f"{expression!r} is no cron expression such as '0 2 * * *'") from None
        return expression

    # Limits

    max_body_bytes: int = Field(
        default=256 * KIB,
        gt=0,
        description="Bytes of a request's body; of a report, more than 64 KiB of metadata are dropped.",
    )
    max_connections: int = Field(
        default=2048,
        ge=1,
        description="Connections at once, a quarter of them (64 at least) of one address; beyond, 503. Some thirty "
        "racks that boot together fit.",
    )

    # What it says of itself

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severity that is logged; info is a line for what an operator cares about."
    )
    log_format: Literal["console", "json"] = Field(
        default="console", description="`console` for eyes, `json` (a line an event) for collectors."
    )
