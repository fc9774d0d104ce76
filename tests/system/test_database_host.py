"""The host of PostgreSQL dies without a word: no connection is closed, and no packet comes back."""

import asyncio
from pathlib import Path

import pytest

from tests.support.central import running_central
from tests.support.postgres import Postgres
from tests.support.relay import tcp_to
from tests.system.lan import ip, own_lan

pytestmark = [pytest.mark.requires("ip"), pytest.mark.timeout(300)]

# Seconds; Linux by itself takes fifteen minutes.
NOTICED_WITHIN = 60


async def test_central_notices_that_the_host_of_its_database_is_gone_and_goes_on_with_the_next(
    tmp_path: Path, postgres: Postgres
) -> None:
    with postgres.database() as address, own_lan(), tcp_to(address) as by_tcp:
        async with running_central(tmp_path, database_url=by_tcp) as central:
            await central.new_site("attic")
            ip("link", "set", "lo", "down")
            asked = [central.anybody.get("/health"), central.admin.post("/api/v1/sites", json={"name": "barn"})]
            try:
                answers = await asyncio.wait_for(asyncio.gather(*asked), NOTICED_WITHIN)
            finally:
                ip("link", "set", "lo", "up")
            assert [answer.status_code for answer in answers] == [503, 503]
            assert (await central.anybody.get("/health")).status_code == 200
            await central.new_site("barn")
