"""What every test may use: the real recordings, where they are, and a closing word on what was skipped without them."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"
NO_DATA = f"REAL DATA ABSENT: no folder {Path('..') / 'shared' / 'data'} beside the project"
NO_BUNDLE = "BUNDLE ABSENT"
NO_TENSORRT = "TENSORRT-RTX ABSENT"
NO_CROSS = "CROSS COMPILER OR EMULATOR ABSENT: apt install g++-aarch64-linux-gnu qemu-user-static googletest"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than about ten seconds")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings; the test is skipped, and named at the end, where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(NO_DATA)
    return SHARED_DATA


@pytest.fixture(scope="session")
def random_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle with random weights for the synthetic rig."""
    from helpers import write_random_bundle

    return write_random_bundle(tmp_path_factory.mktemp("bundle") / "random.imkd")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names every test that real data, a shipped bundle, TensorRT for RTX or a cross compiler would have let run."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if isinstance(report.longrepr, tuple)]
    for reason, advice in (
        (NO_DATA, "these tests did not run on real sensor data"),
        (NO_BUNDLE, "these tests need a shipped bundle"),
        (NO_TENSORRT, "no ONNX part was really parsed and built by a TensorRT builder (pip install tensorrt-rtx)"),
        (NO_CROSS, "nothing was built for a Jetson's processor"),
    ):
        names = sorted({report.nodeid for report in skipped if reason in report.longrepr[2]})
        if names:
            terminalreporter.section(f"{len(names)} skipped: {advice}", sep="!", red=True, bold=True)
            for name in names:
                terminalreporter.write_line(name)
