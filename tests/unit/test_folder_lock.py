from pathlib import Path

import pytest

from pureboot.core.errors import SettingsError
from pureboot.storage.lock import FolderLock


def test_a_second_program_on_the_same_folder_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    first = FolderLock(tmp_path / "agent.lock", "agent")
    with pytest.raises(SettingsError, match=f"another agent runs on {tmp_path}"):
        FolderLock(tmp_path / "agent.lock", "agent")
    first.close()
    first.close()
    FolderLock(tmp_path / "agent.lock", "agent").close()
