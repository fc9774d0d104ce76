"""What the system tests share."""

from pathlib import Path

import pytest

from tests.system.installer import Kernel, debian_kernel
from tests.system.machine import make_disk

CACHE = Path(__file__).parents[2] / ".dev" / "kernel"


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk that says LOCAL-DISK-OK; machines may share it."""
    return make_disk(tmp_path_factory.mktemp("disk") / "disk.img")


@pytest.fixture(scope="session")
def kernel() -> Kernel:
    """Debian's cloud kernel, fetched once and kept from run to run."""
    return debian_kernel(CACHE)
