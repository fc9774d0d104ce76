"""Disks that are soon full, and what comes back from a backup."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """Mounted at `path`. Skips the test where nothing may be mounted."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    if not shutil.which("mount") or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs to mount a file system of its own")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def through_tar(folder: Path, copy: Path) -> Path:
    """A copy as a backup gives it back: the times of its files are whole seconds."""
    archive = copy.with_suffix(".tar")
    copy.mkdir()
    subprocess.run(["tar", "cf", archive, "-C", folder, "."], check=True)
    subprocess.run(["tar", "xf", archive, "-C", copy], check=True)
    return copy
