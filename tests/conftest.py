"""What all tests share: a cache of their own, interrupts that reach what they start, samples of grids."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import defaultdict
from collections.abc import Generator, Iterator

import pytest
from hypothesis import settings

from tests.sampling import sample, seed_of_commit

# Machines that run tests are busy: how long an example takes says nothing.
settings.register_profile("clarion", deadline=None, print_blob=True)
settings.load_profile("clarion")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("clarion")
    group.addoption("--all", action="store_true", help="Run all tests with all their cases.")
    group.addoption("--sample-seed", metavar="TEXT", help="What chooses the cases (default: the commit).")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "sample(number): without --all, only some cases (tests/sampling.py).")
    config.addinivalue_line("markers", "full: only with --all.")
    if config.getoption("--sample-seed") is None:
        config.option.sample_seed = seed_of_commit(config.rootpath)
    # A shell that starts the tests in the background has told them to ignore the signal, and what they start
    # would inherit that. A function is not inherited.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed program that a test started has said why on its standard error: the report shows it."""
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, subprocess.SubprocessError):
        said = getattr(call.excinfo.value, "stderr", None) or b""
        text = said if isinstance(said, str) else said.decode(errors="replace")
        report.sections.append(("standard error of the program", text))
    return report


def _runs_all(config: pytest.Config) -> bool:
    """Whether someone has asked for all, or for some by name."""
    by_name = any("::" in argument for argument in config.args)
    return bool(config.getoption("--all") or config.getoption("keyword") or by_name)


def pytest_report_header(config: pytest.Config) -> str:
    if _runs_all(config):
        return "cases: all"
    return f"cases: a sample, --sample-seed={config.getoption('--sample-seed')} (--all: all)"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _runs_all(config):
        return
    left_out = {item for item in items if item.get_closest_marker("full")}
    grids = defaultdict(list)
    for item in items:
        if hasattr(item, "callspec") and item.get_closest_marker("sample"):
            grids[item.nodeid.partition("[")[0]].append(item)
    for name, grid in grids.items():
        (number,) = grid[0].get_closest_marker("sample").args or (None,)
        cases = [{key: repr(value) for key, value in item.callspec.params.items()} for item in grid]
        kept = sample(cases, number, f"{config.getoption('--sample-seed')} {name}")
        left_out |= set(grid) - {grid[index] for index in kept}
    config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session", autouse=True)
def _own_cache_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before
