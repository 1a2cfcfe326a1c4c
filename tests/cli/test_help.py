"""Help texts: every verb has two examples that are valid commands, and --json."""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib import metadata

import pytest
import typer.main

from imkd_edge.cli import app

VERBS = (
    "demo",
    "infer",
    "run",
    "inspect",
    "doctor",
    "bench",
    "build-engine",
    "train",
    "label",
    "export",
    "quantize",
    "compare",
    "eval",
    "convert",
    "contract",
    "check",
    "init",
    "keygen",
)
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def help_lines(run, verb: str) -> list[str]:
    outcome = run(verb, "--help")
    assert outcome.code == 0
    return [line.strip() for line in outcome.stdout.splitlines() if line.strip()]


def test_verbs_of_the_command() -> None:
    assert set(COMMANDS) == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_ends_in_two_examples(run, verb: str) -> None:
    last = help_lines(run, verb)[-3:]
    assert last[0] == "Examples:"
    assert all(line.startswith(f"imkd-edge {verb}") for line in last[1:])


@pytest.mark.parametrize("verb", VERBS)
def test_examples_are_valid_commands(run, verb: str) -> None:
    for line in help_lines(run, verb)[-2:]:
        arguments = shlex.split(line.split(" > ")[0])[2:]
        COMMANDS[verb].make_context(verb, arguments)  # raises a usage error otherwise


def test_invalid_example_raises() -> None:
    with pytest.raises(Exception, match="No such option"):
        COMMANDS["infer"].make_context("infer", ["synth", "--no-such-option"])


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_json(run, verb: str) -> None:
    assert any("--json" in line for line in help_lines(run, verb))


@pytest.mark.parametrize("verb", VERBS)
def test_a_flag_names_no_value(run, verb: str) -> None:
    """A <bool> behind --json would ask for one; typer writes it behind --help."""
    assert not [line for line in help_lines(run, verb) if "<bool>" in line and "--help" not in line]


def test_command_without_a_verb_prints_the_help(run) -> None:
    outcome = run()
    assert outcome.code == 2
    assert "demo" in outcome.stdout + outcome.stderr


def test_version_is_that_of_the_package(run) -> None:
    assert run("--version").stdout.strip() == f"imkd-edge {metadata.version('imkd-edge')}"


def test_module_is_the_command() -> None:
    """As `torchrun -m imkd_edge.cli` starts it."""
    outcome = subprocess.run([sys.executable, "-m", "imkd_edge.cli", "--version"], capture_output=True, text=True)
    assert outcome.returncode == 0 and outcome.stdout.startswith("imkd-edge ")


@pytest.mark.parametrize(
    "arguments", [["nosuchverb"], ["infer"], ["infer", "synth", "--nosuch"], ["bench", "tiny", "--frames", "0"]]
)
def test_usage_error_has_code_2(run, arguments: list[str]) -> None:
    outcome = run(*arguments)
    assert outcome.code == 2
    assert outcome.stdout == ""
    assert outcome.stderr
