"""A plugin of pytest for the proof on a GPU: selects cases, and writes each with its differences as a line of JSON.

Environment: IMKD_RECORD, the file; IMKD_RECORD_OPS, the ops of parts.py, with commas; IMKD_RECORD_FIRST=1, the first
case of each test.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import differences
import parts
import pytest

FILE = Path(os.environ["IMKD_RECORD"])
# After these the process has no working GPU: the cases that follow would fail for the same reason.
STICKY = re.compile("illegal memory access|unspecified launch failure|misaligned address|device-side assert", re.I)
session_of_run: list[pytest.Session] = []


def write(line: dict) -> None:
    with FILE.open("a") as file:
        file.write(json.dumps(line) + "\n")


def pytest_sessionstart(session: pytest.Session) -> None:
    session_of_run.append(session)
    differences.recording = True


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ops, seen = os.environ.get("IMKD_RECORD_OPS", ""), set()
    selected = []
    for item in items:
        test = getattr(item, "originalname", item.name)
        repeated = test in seen and os.environ.get("IMKD_RECORD_FIRST") == "1"
        if not repeated and (not ops or parts.op_of(item.name) in ops.split(",")):
            selected.append(item)
            seen.add(test)
    config.hook.pytest_deselected(items=[item for item in items if item not in selected])
    items[:] = selected
    write({"selected": [item.name for item in items]})


def pytest_runtest_setup(item: pytest.Item) -> None:
    differences.largest.clear()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown" or (report.when == "setup" and report.passed):
        return
    crash = getattr(report.longrepr, "reprcrash", None)
    message = "" if report.passed else str(crash.message if crash else report.longrepr)
    name = report.nodeid.split("::", 1)[1]
    line = {"case": name, "outcome": report.outcome, "message": message[:300], "seconds": report.duration}
    write({**line, "differences": dict(differences.largest)})
    if STICKY.search(message):
        session_of_run[0].shouldstop = "the GPU no longer works in this process"
