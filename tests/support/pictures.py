"""The pictures of the documentation, made anew: `.venv/bin/python -m tests.support.pictures`."""

import asyncio
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from tests.support.browser import WIDE, add_person, chromium, served, window
from tests.support.central import running_central
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
            async with served(central) as url, chromium() as browser:
                for scheme in ("light", "dark"):
                    async with window(browser, url, "kim", size=WIDE, color_scheme=scheme) as page:
                        for picture, path in PAGES.items():
                            await page.goto(path)
                            await page.screenshot(path=FOLDER / f"{picture}-{scheme}.png")


if __name__ == "__main__":
    asyncio.run(main())
