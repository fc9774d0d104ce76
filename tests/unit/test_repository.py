"""The checkout itself: what may be in it, and what may not."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
LOCKS.remove(ROOT / "requirements" / "system.txt")
SCRIPTS = sorted((ROOT / "scripts").iterdir())

# Written apart, so that this file does not hold what it forbids.
DOWNLOAD_HOSTS = [
    ".".join(labels)
    for labels in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("pytorch", "org"),
        ("anaconda", "org"),
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("snapshot", "debian", "org"),
        ("archive", "ubuntu", "com"),
        ("proxy", "golang", "org"),
        ("crates", "io"),
        ("repo", "maven", "apache", "org"),
        ("astral", "sh"),
        ("ghcr", "io"),
    )
]


def committed_files() -> list[Path]:
    """What git holds, and what the next commit would add."""
    listing = subprocess.run(
        # The checkout may belong to another user, as in a container.
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def requirements_of(lock: Path) -> list[str]:
    """The requirements of a lock, one a line, without their comments."""
    text = re.sub(r"(?m)^\s*#.*\n?", "", lock.read_text())
    return text.replace("\\\n", "").splitlines()


def test_no_file_carries_a_download_address():
    forbidden = re.compile("|".join(re.escape(host) for host in DOWNLOAD_HOSTS), re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in committed_files()
        for match in forbidden.finditer(path.read_bytes().decode(errors="replace"))
    ]
    assert found == []


def test_no_lock_that_carries_addresses_is_committed():
    names = {path.name for path in committed_files()}
    assert not names & {"uv.lock", "poetry.lock", "Pipfile.lock", "yarn.lock", "pnpm-lock.yaml"}
    assert not [name for name in names if re.fullmatch(r"pylock(\..+)?\.toml", name)]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_each_locked_requirement_is_one_version_with_its_hashes(lock):
    requirements = requirements_of(lock)
    assert requirements
    pinned = re.compile(r"[a-z0-9._-]+(\[[a-z0-9,-]+\])?==[^\s/:]+ +(;[^/:]+?)?(--hash=sha256:[0-9a-f]{64}\s*)+")
    assert [line for line in requirements if not pinned.fullmatch(line)] == []


def test_what_is_tested_is_what_runs():
    run, dev = (set(requirements_of(ROOT / "requirements" / name)) for name in ("run.txt", "dev.txt"))
    assert run < dev


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_are_executable_posix_shell(script):
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", script], check=True)


def test_core_imports_the_standard_library_only():
    allowed = sys.stdlib_module_names | {"pureboot"}
    foreign = {
        f"{path.name}: {name}"
        for path in (ROOT / "src/pureboot/core").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in imported_by(node)
        if name.split(".")[0] not in allowed
    }
    assert foreign == set()


def imported_by(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=str(module), level=0):
            return [module]
        case _:
            return []


class TestSkips:
    """The rule of tests/conftest.py, tried on a suite that needs what no machine has."""

    @pytest.fixture
    def run_suite(self, tmp_path, monkeypatch):
        suite = tmp_path / "tests" / "system"
        suite.mkdir(parents=True)
        shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "tests")
        (tmp_path / "pytest.ini").write_text("[pytest]\n")
        (suite / "test_machine.py").write_text(
            "import pytest\n"
            "@pytest.mark.requires('sh', '/', 'no-such-tool', '/no/such/file')\n"
            "def test_boots(): pass\n"
            "@pytest.mark.requires('sh', '/')\n"
            "def test_stands(): pass\n"
        )
        (suite / "test_module.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")

        def run(*arguments: str, ci: str = "") -> tuple[int, str]:
            monkeypatch.setenv("CI", ci)
            command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
            result = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
            return result.returncode, result.stdout

        return run

    def test_are_told_at_the_end_with_their_reason(self, run_suite):
        code, output = run_suite()
        assert code == pytest.ExitCode.OK
        assert "system: 1 skipped: needs no-such-tool, /no/such/file" in output
        assert "system: 1 skipped: could not import 'no_such_module'" in output
        assert "1 passed, 2 skipped" in output

    def test_fail_in_ci(self, run_suite):
        code, output = run_suite("--continue-on-collection-errors", ci="true")
        assert code == pytest.ExitCode.TESTS_FAILED
        assert "skipped, which CI does not allow: needs no-such-tool, /no/such/file" in output
        assert "1 passed" in output
        assert "2 skipped" not in output

    def test_of_the_slow_group_are_told_too(self, run_suite):
        code, output = run_suite("--fast")
        assert code == pytest.ExitCode.NO_TESTS_COLLECTED
        assert "system: all of it, because of --fast" in output
