"""How a command ends when nothing went as it should: one line and a code, or a traceback and a code of its own."""

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
    def load(*arguments: object) -> None:
        raise error

    return load


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
def test_what_the_system_refuses_is_one_line_and_code_3(
    run, monkeypatch: pytest.MonkeyPatch, error: Exception, start: str
) -> None:
    monkeypatch.setattr(Bundle, "load", raising(error))
    outcome = run("inspect", "tiny")
    assert (
        outcome.code == 3
        and outcome.stderr.startswith(start)
        and outcome.stderr.count("\n") == 1
        and outcome.stdout == ""
    )


def test_a_bug_has_its_traceback_and_no_code_of_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(Bundle, "load", raising(ZeroDivisionError("of ours")))
    monkeypatch.setattr(sys, "argv", ["imkd-edge", "inspect", "tiny"])
    with pytest.raises(SystemExit) as raised:
        main()
    assert raised.value.code == 70
    assert "Traceback" in (told := capsys.readouterr().err) and "ZeroDivisionError: of ours" in told


@pytest.mark.parametrize("json_flag", [[], ["--json"]], ids=["text", "json"])
def test_a_reader_that_has_seen_enough_is_no_failure(json_flag: list[str]) -> None:
    """As with `| head -1`: the pipe is closed before all is written."""
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
def test_a_terminal_of_any_encoding_is_written_to(verb: tuple[str, ...], encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "160"}
    done = subprocess.run([sys.executable, "-m", "imkd_edge.cli", *verb], env=environment, capture_output=True)
    text = done.stdout.decode(encoding)
    assert done.returncode == 0 and not done.stderr
    assert ("×" in text) == (encoding != "ascii" and verb[0] != "--help")
    assert "?" not in text


def test_json_is_escaped_where_the_terminal_lacks_a_letter() -> None:
    command = "from imkd_edge.cli.common import print_json; print_json({'name': 'Straße ×'})"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"name": "Straße ×"} and done.stdout.isascii()
