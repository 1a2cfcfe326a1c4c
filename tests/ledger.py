"""Which tests may be skipped (skips.toml), and how long a test file should take (budget.toml).

python tests/ledger.py report|ledger CTEST.xml ... lists the skips of the C++ tests; `ledger` fails on a reason that is
not in skips.toml.
"""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10: pytest brings it
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
UNLISTED = "for a reason that is not in tests/skips.toml"


def read(name: str) -> dict[str, Any]:
    return tomllib.loads((HERE / name).read_text(encoding="utf-8"))


def kinds(skipped: Iterable[tuple[str, str]]) -> tuple[dict[str, list[str]], list[str]]:
    """Sorts (test, reason) by skips.toml.

    Returns: what did not run -> names of the tests; and the tests whose reason is not listed, with the reason.
    """
    listed, found, unlisted = read("skips.toml"), defaultdict(set), []
    for test, reason in sorted(set(skipped)):
        advice = next((text for pattern, text in listed.items() if re.search(pattern, reason)), None)
        if advice is None:
            unlisted.append(f"{test}: {reason}")
        else:
            found[advice].add(test)
    return {advice: sorted(names) for advice, names in found.items()}, unlisted


def of_ctest(path: Path) -> list[tuple[str, str]]:
    """(test, reason) of each skipped test in what `ctest --output-junit` has written."""
    found = []
    for case in ET.parse(path).getroot().iter("testcase"):
        if case.find("skipped") is not None:
            said = case.findtext("system-out") or "no output"
            message = re.search(r": Skipped\n(.*?)\n+(?:\[|$)", said, re.S)  # GoogleTest's
            found.append((f"{path.parent.name}/{case.get('name')}", message[1] if message else said.strip()))
    return found


def beyond(seconds: dict[str, float]) -> list[str]:
    """The test files that took longer than budget.toml allows, as text; seconds: file -> s."""
    budget = read("budget.toml")
    allowed = {file: budget["files"].get(file, budget["other_files"]) for file in seconds}
    late = sorted((file for file in seconds if seconds[file] > allowed[file]), key=lambda file: -seconds[file])
    return [f"{file}: {seconds[file]:.0f} s, budget {allowed[file]:.0f} s" for file in late]


def main(mode: str, *paths: str) -> int:
    found, unlisted = kinds(skip for path in paths for skip in of_ctest(Path(path)))
    for advice, names in found.items():
        print(f"{len(names)} skipped: {advice}\n  " + "\n  ".join(names))
    for line in unlisted:
        print(f"skipped {UNLISTED}: {line}")
    return int(mode == "ledger" and bool(unlisted))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
