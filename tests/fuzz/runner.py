"""Builds the fuzz targets, runs two at a time, and prints a row for each; exits with 1 where one has a finding."""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "fuzz"
FOUND, CORPUS = BUILD / "findings", BUILD / "corpus"  # inputs that fail; inputs that reach new code
CLANGS = ("clang++-19", "clang++-18", "clang++-17", "clang++-16", "clang++-15", "clang++-14", "clang++")
ATHERIS = "atheris==3.0.0"
MEGABYTES = 512
AT_ONCE = 2
CALLS = {"c_abi": 300, "detector": 300, "live": 300}  # bytes of an input of calls; more of them reach no other code
# A report of each comparison takes a third of the time; without it the same code is reached, from these seeds.
UNINSTRUMENTED = "-DCMAKE_CXX_FLAGS=-fno-sanitize-coverage=trace-cmp"
EPILOG = """examples:
  tests/fuzz/run --seconds 60                     every C++ target for a minute, two at a time
  tests/fuzz/run --python --target pcd --runs 1000000
"""


@dataclass
class Outcome:
    """What one target's run printed, and the inputs that failed."""

    target: str
    output: str
    findings: list[Path]
    status: int

    def number(self, name: str) -> int:
        match = re.search(rf"stat::{name}:\s+(\d+)", self.output)
        return int(match[1]) if match else 0

    def failed(self) -> bool:
        return bool(self.findings or self.status)


def main() -> int:
    arguments = parsed()
    names = sorted(path.stem for path in (HERE / ("python" if arguments.python else "targets")).glob("*.*"))
    unknown = [name for name in arguments.target if name not in names]
    if unknown:
        print(f"there is no target {unknown[0]}; there are {', '.join(names)}", file=sys.stderr)
        return 2
    names = arguments.target or names
    command_of = python_commands() if arguments.python else cpp_commands(names)
    if command_of is None:
        return 0 if arguments.if_possible else 3
    FOUND.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={arguments.seconds}", *([f"-runs={arguments.runs}"] if arguments.runs else [])]
    limits += [f"-seed={arguments.seed}"] if arguments.seed else []
    print(f"\n{'target':<20}{'executions':>12}{'exec/s':>9}{'new units':>11}{'MiB':>6}{'findings':>10}", flush=True)
    outcomes = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for outcome in pool.map(lambda name: run(name, command_of(name), limits), names):
            outcomes.append(outcome)
            print_row(outcome)
    return report([outcome for outcome in outcomes if outcome.failed()], command_of)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "tests/fuzz/run", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", action="store_true", help="the readers in Python, with atheris, not those in C++")
    parser.add_argument("--target", action="append", default=[], help="only this one; may be given again")
    parser.add_argument("--seconds", type=int, default=60, help="per target (60)")
    parser.add_argument("--runs", type=int, default=0, help="stop a target after so many executions")
    parser.add_argument("--seed", type=int, default=0, help="of the changes, for equal runs; 0: another one each time")
    parser.add_argument("--if-possible", action="store_true", help="succeed where the fuzzer itself is not there")
    return parser.parse_args()


# ---- what runs a target ----
def cpp_commands(names: list[str]) -> Callable[[str], list[str]] | None:
    """Builds the targets; None where there is no clang with libFuzzer."""
    compiler = next((path for name in CLANGS if (path := shutil.which(name)) and has_fuzzer(path)), None)
    if compiler is None:
        say("NOT FUZZED: no clang with libFuzzer (apt-get install clang-19 libclang-rt-19-dev)", "fuzz_replay_*")
        return None
    sanitizers = "address,undefined,float-cast-overflow,fuzzer-no-link"
    flags = ["-DIMKD_BUILD_FUZZ=ON", f"-DIMKD_SANITIZE={sanitizers}", "-DCMAKE_BUILD_TYPE=Debug"]
    configure = ["cmake", "-S", str(ROOT), "-G", "Ninja", "-B", str(BUILD), UNINSTRUMENTED, *flags]
    environment = {"CMAKE_CXX_COMPILER_LAUNCHER": str(ROOT / ".ci" / "compile"), **os.environ, "CXX": compiler}
    targets = [f"fuzz_{name}" for name in names]
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:  # several runs in one checkout build one after the other
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(configure, check=True, stdout=subprocess.DEVNULL, env=environment)
        subprocess.run(["cmake", "--build", str(BUILD), "--target", *targets], check=True, stdout=sys.stderr)
    return lambda name: [str(BUILD / "tests" / "fuzz" / f"fuzz_{name}")]


def has_fuzzer(compiler: str) -> bool:
    program = '#include <cstddef>\n#include <cstdint>\nextern "C" int LLVMFuzzerTestOneInput(const uint8_t*, size_t) '
    link = [compiler, "-fsanitize=fuzzer,address,undefined", "-x", "c++", "-", "-o", os.devnull]
    return subprocess.run(link, input=program + "{ return 0; }", text=True, capture_output=True).returncode == 0


def python_commands() -> Callable[[str], list[str]] | None:
    """Installs atheris into build/, beside the environment of the tests; None where that fails."""
    python, packages = ROOT / ".venv" / "bin" / "python", BUILD / "python"
    if not (packages / "atheris").is_dir():
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        if not python.exists() or subprocess.run([*pip, "--target", str(packages), ATHERIS]).returncode:
            say(f"NOT FUZZED: no {ATHERIS} for this Python (x86_64, 3.11 to 3.13)", "test_replay.py")
            return None
    return lambda name: [str(python), str(HERE / "fuzz_python.py"), name]


def say(what: str, rest: str) -> None:
    print(f"\n==== {what}; what remains is the replay of the corpus ({rest}) ====\n", file=sys.stderr)


# ---- a run ----
def run(name: str, command: list[str], limits: list[str]) -> Outcome:
    corpus, prefix = CORPUS / name, FOUND / f"{name}-"
    corpus.mkdir(parents=True, exist_ok=True)
    words = HERE / f"{name}.dict"
    options = [
        f"-rss_limit_mb={MEGABYTES}",
        "-print_final_stats=1",
        "-reload=0",  # no other process writes into the corpus, and listing it takes half of the time of a large one
        f"-artifact_prefix={prefix}",
        *([f"-dict={words}"] if words.exists() else []),
        *([f"-max_len={CALLS[name]}"] if name in CALLS else []),
    ]
    before = set(FOUND.glob(f"{name}-*"))
    process = subprocess.run(
        [*command, *limits, *options, str(corpus), str(HERE / "corpus" / name)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment(),
    )
    return Outcome(name, process.stdout, sorted(set(FOUND.glob(f"{name}-*")) - before), process.returncode)


def environment() -> dict[str, str]:
    """Files of the targets lie in build/; freed memory is kept for a while, within the limit."""
    folder = BUILD / "tmp"
    folder.mkdir(parents=True, exist_ok=True)
    return {"ASAN_OPTIONS": "quarantine_size_mb=64", **os.environ, "TMPDIR": str(folder)}


def print_row(outcome: Outcome) -> None:
    counts = [outcome.number(name) for name in ("number_of_executed_units", "average_exec_per_sec")]
    counts += [outcome.number("new_units_added"), outcome.number("peak_rss_mb")]
    cells = f"{counts[0]:>12}{counts[1]:>9}{counts[2]:>11}{counts[3]:>6}{outcome.failed():>10d}"
    print(f"{outcome.target:<20}{cells}", flush=True)


def report(failed: list[Outcome], command_of: Callable[[str], list[str]]) -> int:
    for outcome in failed:
        print(f"\n---- {outcome.target}: the end of its output ----\n{outcome.output[-3000:]}")
        for finding in outcome.findings:
            print(f"reproducer: {finding}\nreplay:     {' '.join([*command_of(outcome.target), str(finding)])}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
