"""What every test shares: what it may need from the machine, and the report of what was left out.

A test that needs more than Python says so with ``@pytest.mark.requires`` and is skipped where that is
missing. In CI nothing may be missing: there a skip, whatever its reason, is a failure.
"""

import os
import shutil
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
# Those that take more than a minute, by what they took in a whole run.
LONGEST_FIRST = {
    name: place
    for place, name in enumerate(
        (
            "test_real_dhcp",
            "test_histories",
            "test_faults",
            "test_outage",
            "test_demo",
            "test_mutation_gate",
            "test_ui",
            "test_tftp_clients",
            "test_copies",
            "test_conflict_matrix",
            "test_restore",
            "test_model",
        )
    )
}
IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}

# No deadlines: a busy machine must not fail a property.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if IN_CI else "default")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="leave out tests/system")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "requires(*needs): commands in PATH, or absolute paths of files, that the test cannot do without"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if config.getoption("--fast") and collection_path == TESTS / "system" else None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    needs = [need for marker in item.iter_markers("requires") for need in marker.args]
    if missing := [need for need in needs if not is_here(need)]:
        pytest.skip(f"needs {', '.join(missing)}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first: a long one that comes last leaves the other worker with nothing to do."""
    items.sort(key=lambda item: LONGEST_FIRST.get(item.path.stem, len(LONGEST_FIRST)))


def is_here(need: str) -> bool:
    return Path(need).exists() if need.startswith("/") else shutil.which(need) is not None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        fail_the_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if IN_CI and report.skipped:
        fail_the_skip(report)
    return report


def fail_the_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    report.outcome = "failed"
    report.longrepr = f"skipped, which CI does not allow: {reason_of(report)}"


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    match report.longrepr:
        case (_, _, str(reason)):
            return reason.removeprefix("Skipped: ")
        case other:
            return str(other)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = list(left_out(terminalreporter, config))
    if lines:
        terminalreporter.section("left out")
    for line in lines:
        terminalreporter.line(line)


def left_out(reporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[str]:
    if config.getoption("--fast"):
        yield "system: all of it, because of --fast"
    skips = Counter((group_of(report), reason_of(report)) for report in reporter.stats.get("skipped", []))
    for (group, reason), count in sorted(skips.items()):
        yield f"{group}: {count} skipped: {reason}"


def group_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The folder under tests/ that the test lies in."""
    return report.nodeid.removeprefix("tests/").split("/")[0]
