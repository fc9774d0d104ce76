"""Pictures of the documentation made anew (sites, a node, a conflict): `.venv/bin/python -m tests.support.pictures`."""

import asyncio
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from tests.integration.test_central_settlement import disputed
from tests.support.browser import WIDE, add_person, chromium, served, window
from tests.support.central import RunningCentral, running_central
from tests.support.seed import content, node_id, outage_of, seed

FOLDER = Path(__file__).parents[2] / "docs" / "images"
PAGES = {"central-sites": "/sites", "central-node": f"/nodes/{node_id(5)}"}


async def main() -> None:
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as name:
        async with running_central(Path(name)) as central:
            central.db.write_now(lambda conn: seed(conn, sites=40, nodes=3000, workflows=4, now=now))
            central.db.write_now(lambda conn: outage_of(conn, 5, now))
            central.db.write_now(lambda conn: content(conn, now))
            await add_person(central, "kim", "operator")
            conflict = await _conflict(central)
            async with served(central) as url, chromium() as browser:
                for scheme in ("light", "dark"):
                    async with window(browser, url, "kim", size=WIDE, color_scheme=scheme) as page:
                        for picture, path in (PAGES | {"central-conflict": f"/conflicts/{conflict}"}).items():
                            await page.goto(path)
                            await page.screenshot(path=FOLDER / f"{picture}-{scheme}.png")


async def _conflict(central: RunningCentral) -> str:
    """A machine was installed at its site while somebody at central gave it away to be cloned onto."""
    site = await central.new_site("Reykjavik-2", conflict_resolution="manual")
    conflict = await disputed(central, await central.speaking_agent(site["id"]), 4, "cloning_target", whole=True)
    await central.ask("PATCH", "/nodes/n4", json={"hostname": "edge-04"})
    return str(conflict["id"])


if __name__ == "__main__":
    asyncio.run(main())
