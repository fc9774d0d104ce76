"""What the system tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres import empty_database
from tests.support.postgres import postgres as postgres
from tests.system import installer
from tests.system.installer import Kernel, debian_kernel
from tests.system.machine import make_disk

CACHE = Path(__file__).parents[2] / ".dev" / "kernel"


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk that says LOCAL-DISK-OK; machines may share it."""
    return make_disk(tmp_path_factory.mktemp("disk") / "disk.img")


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[str]:
    with empty_database(request.param, lambda: request.getfixturevalue("postgres")) as address:
        yield address


@pytest.fixture(scope="session")
def kernel() -> Kernel:
    """Debian's cloud kernel, fetched once and kept from run to run."""
    return debian_kernel(CACHE)


@pytest.fixture(scope="session")
def debian_installer() -> installer.DebianInstaller:
    """Debian's own, fetched once and kept from run to run."""
    return installer.debian_installer(CACHE)
