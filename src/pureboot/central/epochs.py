"""Accounting: of each life of an agent's process, what became of the items it accepted (PROTOCOL 7, I10)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, select

from pureboot.central import tables as t
from pureboot.central.accounts import Agent
from pureboot.central.bodies import EpochGap
from pureboot.central.sql import many, one, rows_of, upsert
from pureboot.wire.messages import EpochAccount

SHOWN = 100


_KNOWN = select(t.epoch_account).where(
    t.epoch_account.c.agent_id == one("agent"), t.epoch_account.c.epoch.in_(many("epochs"))
)


def keep(conn: Connection, agent: Agent, teller: str, accounts: Sequence[EpochAccount], now: datetime) -> None:
    """What was counted once stays counted: an agent restored from its backup has forgotten some of it. `teller`: the
    epoch that is alive and tells them."""
    if not accounts:
        return
    known = {row.epoch: row for row in rows_of(conn, _KNOWN, agent=agent.id, epochs=[a.epoch for a in accounts])}
    upsert(
        conn,
        t.epoch_account,
        [
            {
                "agent_id": agent.id,
                "epoch": account.epoch,
                "site_id": agent.site_id,
                "made": max(account.made, known[account.epoch].made if account.epoch in known else 0),
                "settled": max(account.settled, known[account.epoch].settled if account.epoch in known else 0),
                "discarded": max(account.discarded, known[account.epoch].discarded if account.epoch in known else 0),
                "queued": account.queued,
                "reported_at": now,
            }
            for account in {account.epoch: account for account in accounts}.values()
            if account.epoch not in known or not _is_late(account, known[account.epoch], teller)
        ],
    )


def _is_late(account: EpochAccount, known: Row[Any], teller: str) -> bool:
    """Told before what is known already, by a request that was long on its way. Its `queued` beside the newer counts
    would be a gap that there is not. Of another life fewer items made are no older news, but a file from a backup."""
    if account.epoch != teller and account.made != known.made:
        return False
    ended = account.settled + account.discarded
    return bool(account.made < known.made or ended < known.settled + known.discarded)


def gaps(conn: Connection, site_id: str) -> list[EpochGap]:
    """Those whose sums do not agree, the newest first; `received`: how many receipts central has of the epoch."""
    rows = t.epoch_account.c
    missing = (rows.made - rows.settled - rows.discarded - rows.queued).label("gap")
    query = select(t.epoch_account, missing).where(rows.site_id == site_id, missing != 0)
    found = conn.execute(query.order_by(rows.reported_at.desc(), rows.epoch).limit(SHOWN)).all()
    return [
        EpochGap.model_validate(row._asdict() | {"received": _received(conn, row.agent_id, row.epoch)}) for row in found
    ]


def _received(conn: Connection, agent_id: str, epoch: str) -> int:
    receipts = t.sync_receipt.c
    query = select(func.count()).where(receipts.agent_id == agent_id, receipts.epoch == epoch)
    return int(conn.execute(query).scalar_one())
