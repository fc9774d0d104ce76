"""What a database of before holds, after its upgrade."""

from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from pureboot.central import engines, migrations
from pureboot.central import tables as t
from pureboot.central.alerts import notices
from tests.support.central import running_central

NOTICE = (
    "INSERT INTO site_notice (site_id, kind, subject, detail, times, first_at, last_at)"
    " VALUES (:site, :kind, :subject, '{}', 3, :first, :last)"
)


def upgrade_to(url: sa.URL, revision: str) -> sa.Engine:
    engine = engines.connect(url).writing
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    return engine


async def test_notices_become_alerts_and_nothing_of_them_is_lost(tmp_path: Path) -> None:
    with upgrade_to(engines.sqlite_file(tmp_path / "central.db"), "0005").begin() as conn:
        now = datetime(2026, 1, 28, 12, tzinfo=UTC)
        conn.execute(
            sa.text(
                "INSERT INTO site (id, name, description, agent_url, autonomy_level, conflict_resolution, cache_policy,"
                " cache_patterns, cache_max_size_gb, cache_retention_days, migration_policy, version, created_at,"
                " updated_at) VALUES ('s1', 'attic', '', '', 'limited', 'manual', 'assigned', '[]', 50, 30, 'manual',"
                " 1, :now, :now)"
            ),
            {"now": now},
        )
        for kind in ("fenced", "sync_discarded"):
            conn.execute(
                sa.text(NOTICE), {"site": "s1", "kind": kind, "subject": f"of-{kind}", "first": now, "last": now}
            )
    async with running_central(tmp_path) as central:
        found = {notice.kind: notice for notice in await central.db.read(lambda conn: notices(conn, "s1"))}
        assert {kind: (each.subject, each.times) for kind, each in found.items()} == {
            "fenced": ("of-fenced", 3),
            "sync_discarded": ("of-sync_discarded", 3),
        }
        assert (found["fenced"].ended_at, found["sync_discarded"].ended_at is None) == (None, False)


async def test_housekeeping_goes_on_from_when_central_was_there_last(tmp_path: Path) -> None:
    last = datetime(2026, 1, 28, 12, tzinfo=UTC)
    with upgrade_to(engines.sqlite_file(tmp_path / "central.db"), "0006").begin() as conn:
        conn.execute(sa.text("UPDATE watch SET at = :last"), {"last": last})
    async with running_central(tmp_path) as central:
        assert await central.db.read(lambda conn: conn.execute(sa.select(t.meta.c.kept_house_at)).scalar()) == last
