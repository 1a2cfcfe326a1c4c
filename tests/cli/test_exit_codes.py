"""Failures of a command: one line and an exit code, or for a bug a traceback and another code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from imkd_edge.bundle import Bundle
from imkd_edge.cli import main


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
