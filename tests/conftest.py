"""Fixtures of all tests: real recordings, and what a run makes once. Summary: skips by reason, files over budget."""

from __future__ import annotations

import os
import shutil
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: a worker has one core
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import ledger
import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"
NO_DATA = f"REAL DATA ABSENT: no folder {Path('..') / 'shared' / 'data'} beside the project"
NO_BUNDLE = "BUNDLE ABSENT"
NO_TENSORRT = "TENSORRT-RTX ABSENT"
NO_CROSS = "CROSS COMPILER OR EMULATOR ABSENT: apt install g++-aarch64-linux-gnu qemu-user-static googletest"


Once = Callable[[str, Callable[[Path], Any]], Path]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--skips",
        choices=["report", "ledger"],
        default="report",
        help="ledger: fail where a test is skipped for a reason that tests/skips.toml does not list",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than about ten seconds")
    if (
        getattr(config.option, "dist", "no") == "load"
    ):  # xdist's default. One worker takes a file: its fixtures are made once
        config.option.dist, config.option.loadscopereorder = "loadfile", False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no worker begins one when the others have nothing left."""
    seconds = ledger.read("budget.toml")["files"]
    items.sort(key=lambda item: -seconds.get(item.nodeid.split("::")[0], 0))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings; the test is skipped, and named at the end, where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(NO_DATA)
    return SHARED_DATA


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Once:
    """once(name, make) -> a folder that make(folder) fills once in a test run; other workers get it as it is."""
    root = tmp_path_factory.getbasetemp()
    if hasattr(pytestconfig, "workerinput"):
        root = root.parent

    def call(name: str, make: Callable[[Path], Any]) -> Path:
        folder, done = root / f"once-{name}", root / f"once-{name}.done"
        with FileLock(root / f"once-{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a try that failed
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return call


@pytest.fixture(scope="session")
def remembered_synth() -> Iterator[None]:
    """Each worker renders a frame of the synthetic world once; the arrays are read-only."""
    from imkd_edge.sources.base import Sample
    from imkd_edge.sources.synth import SynthSource

    render, cache = SynthSource.__getitem__, OrderedDict()

    def remember(source: SynthSource, name: str) -> Sample:
        options = (source.seed, source.frames_per_scene, source.rate_hz, source.image, source.sweeps, source.lidar)
        key = (*options, source.classes, source.exposure, source.drive, source.rig.to_json(), name)
        if key not in cache:
            cache[key] = sample = render(source, name)
            for array in (*sample.frames.values(), *(sweep.points for sweep in sample.radar)):
                array.flags.writeable = False
            if len(cache) > 100:  # of 2.5 MB each
                cache.popitem(last=False)
        sample = cache[key]
        return replace(sample, rig=source.rig, frames=dict(sample.frames), radar=list(sample.radar))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SynthSource, "__getitem__", remember)
        yield


@pytest.fixture(scope="session")
def random_bundle(once: Once) -> Path:
    """A small bundle with random weights for the synthetic rig."""
    from helpers import write_random_bundle

    return once("random", lambda folder: write_random_bundle(folder / "random.imkd")) / "random.imkd"


# ---- the end of a run ----
def skipped(config: pytest.Config) -> Iterator[tuple[str, str]]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    for report in reporter.stats.get("skipped", []) if reporter else []:
        if isinstance(report.longrepr, tuple):
            yield report.nodeid, report.longrepr[2].removeprefix("Skipped: ")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With --skips ledger: fails where a reason is not listed. Only the controller of the workers has all reports."""
    if hasattr(session.config, "workerinput") or session.config.option.skips != "ledger":
        return
    if ledger.kinds(skipped(session.config))[1] and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Names every test that did not run, by what it lacked, and every test file that took longer than its budget."""
    kinds, unlisted = ledger.kinds(skipped(config))
    for advice, names in kinds.items():
        terminalreporter.section(f"{len(names)} skipped: {advice}", sep="!", red=True, bold=True)
        for name in names:
            terminalreporter.write_line(name)
    if unlisted:
        terminalreporter.section(f"{len(unlisted)} skipped {ledger.UNLISTED}", sep="!", red=True, bold=True)
        for line in unlisted:
            terminalreporter.write_line(line)
    for line in ledger.beyond(seconds_by_file(terminalreporter)):
        terminalreporter.write_line(f"over budget: {line}")


def seconds_by_file(terminalreporter: pytest.TerminalReporter) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                found[report.nodeid.split("::")[0]] += report.duration
    return found
