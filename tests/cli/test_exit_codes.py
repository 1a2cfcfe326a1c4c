"""Failures of a command: one line and an exit code, or for a bug a traceback and another code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from imkd_edge.bundle import Bundle
from imkd_edge.cli import main
from imkd_edge.errors import Error


def raising(error: BaseException) -> Callable[..., None]:
    """A function that raises an error, whatever its arguments."""

    def call(*arguments: object) -> None:
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "start"),
    [
        (
            PermissionError(13, "Permission denied", "/some/where"),
            "error[E0702] the system refuses: Permission denied / /some/where / ",
        ),
        (OSError("no more"), "error[E0702] the system refuses: no more"),
        (MemoryError("Unable to allocate 1 TiB"), "error[E0511] not enough memory: Unable to allocate 1 TiB"),
        (MemoryError(), "error[E0511] not enough memory"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_error_of_the_system_is_one_line_and_code_3(
    run, monkeypatch: pytest.MonkeyPatch, error: Exception, start: str
) -> None:
    monkeypatch.setattr(Bundle, "load", raising(error))
    outcome = run("inspect", "tiny")
    assert outcome.code == 3 and outcome.stdout == ""
    assert outcome.stderr.startswith(start) and outcome.stderr.count("\n") == 1


def test_bug_prints_its_traceback_and_exits_with_70(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(Bundle, "load", raising(ZeroDivisionError("a bug")))
    monkeypatch.setattr(sys, "argv", ["imkd-edge", "inspect", "tiny"])
    with pytest.raises(SystemExit) as raised:
        main()
    assert raised.value.code == 70
    stderr = capsys.readouterr().err
    assert "Traceback" in stderr and "ZeroDivisionError: a bug" in stderr


@pytest.mark.parametrize("json_flag", [[], ["--json"]], ids=["text", "json"])
def test_closed_pipe_is_no_failure(json_flag: list[str]) -> None:
    """As with `| head -1`: the reader closes the pipe before the end of the output."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "imkd_edge.cli", "inspect", "tiny", *json_flag]
    outcome = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert outcome.returncode == 0 and outcome.stderr == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize(
    "verb", [("infer", "synth", "--frame", "0", "--threads", "1"), ("inspect", "tiny"), ("--help",)]
)
def test_output_fits_the_encoding_of_the_terminal(verb: tuple[str, ...], encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "160"}
    outcome = subprocess.run([sys.executable, "-m", "imkd_edge.cli", *verb], env=environment, capture_output=True)
    text = outcome.stdout.decode(encoding)
    assert outcome.returncode == 0 and not outcome.stderr
    assert ("×" in text) == (encoding != "ascii" and verb[0] != "--help")
    assert "?" not in text


def test_json_escapes_letters_that_the_encoding_lacks() -> None:
    code = "from imkd_edge.cli.common import print_json; print_json({'name': 'Straße ×'})"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", code]
    stdout = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert json.loads(stdout) == {"name": "Straße ×"} and stdout.isascii()


def test_a_warning_is_one_line_on_standard_error() -> None:
    command = (
        "import warnings; from imkd_edge.cli.common import adapt_streams; adapt_streams(); warnings.warn('no pose')"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == "warning: no pose\n" and not done.stdout


CLI = [sys.executable, "-m", "imkd_edge.cli"]


@pytest.mark.parametrize("verb", [("--version",), ("--help",), ("inspect", "tiny"), ("inspect", "tiny", "--json")])
def test_a_full_standard_output_is_one_line_and_code_3(verb: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        outcome = subprocess.run([*CLI, *verb], stdout=full, stderr=subprocess.PIPE, text=True)
    assert outcome.returncode == 3 and outcome.stderr.count("\n") == 1 and "No space left" in outcome.stderr


@pytest.mark.parametrize(
    ("closed", "verb", "code"), [(">&-", "inspect tiny --json", 0), ("2>&-", "inspect no.imkd", 4)]
)
def test_a_closed_standard_stream_changes_no_exit_code(closed: str, verb: str, code: int) -> None:
    """As services and cron start programs."""
    command = f"exec {sys.executable} -m imkd_edge.cli {verb} {closed}"
    assert subprocess.run(["sh", "-c", command], stdin=subprocess.DEVNULL).returncode == code


@pytest.mark.parametrize(
    "options",
    [("inspect", "tiny", "--trust", ""), ("infer", "synth", "--frames", ""), ("infer", "synth", "--trust", "")],
)
def test_an_empty_option_is_refused(run, options: tuple[str, ...]) -> None:
    outcome = run(*options)
    assert outcome.code == 2 and "it is empty" in outcome.stderr


def test_an_empty_trust_is_refused() -> None:
    with pytest.raises(Error, match="is empty") as raised:
        Bundle.load("tiny", trust="")
    assert raised.value.code == "E0416"


def test_a_seed_that_no_generator_takes_is_refused(run) -> None:
    outcome = run("train", "tiny", "--seed", "99999999999999999999")
    assert outcome.code == 2 and "4294967295" in outcome.stderr


def test_a_terminated_verb_leaves_nothing_hidden(tmp_path: Path) -> None:
    """SIGTERM while results are written: temporary folders are removed."""
    command = [*CLI, "infer", "synth", "--bundle", "tiny", "--limit", "40", "--save", "--out", tmp_path / "out"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (tmp_path / "out").is_dir():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and stderr.endswith("interrupted\n")
    assert not list((tmp_path / "out").glob(".*"))
