"""Help texts: every verb explains itself and ends in two examples that are valid commands."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest
import typer.main

from imkd_edge.cli import app

VERBS = (
    "demo",
    "infer",
    "inspect",
    "doctor",
    "bench",
    "build-engine",
    "train",
    "export",
    "quantize",
    "compare",
    "eval",
)
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def help_lines(run, verb: str) -> list[str]:
    outcome = run(verb, "--help")
    assert outcome.code == 0
    return [line.strip() for line in outcome.stdout.splitlines() if line.strip()]


def test_the_verbs_are_these() -> None:
    assert set(COMMANDS) == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_help_ends_in_two_examples(run, verb: str) -> None:
    last = help_lines(run, verb)[-3:]
    assert last[0] == "Examples:"
    assert all(line.startswith(f"imkd-edge {verb}") for line in last[1:])


@pytest.mark.parametrize("verb", VERBS)
def test_the_examples_are_valid_commands(run, verb: str) -> None:
    for line in help_lines(run, verb)[-2:]:
        arguments = shlex.split(line.split(" > ")[0])[2:]
        COMMANDS[verb].make_context(verb, arguments)  # raises a usage error otherwise


def test_an_invalid_example_would_be_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        COMMANDS["infer"].make_context("infer", ["synth", "--no-such-option"])


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_json(run, verb: str) -> None:
    assert any("--json" in line for line in help_lines(run, verb))


def test_no_verb_shows_the_help(run) -> None:
    outcome = run()
    assert outcome.code == 2
    assert "demo" in outcome.stdout + outcome.stderr


def test_version(run) -> None:
    from importlib.metadata import version

    assert run("--version").stdout.strip() == f"imkd-edge {version('imkd-edge')}"


def test_the_module_is_the_command() -> None:
    """torchrun -m imkd_edge.cli ..."""
    outcome = subprocess.run([sys.executable, "-m", "imkd_edge.cli", "--version"], capture_output=True, text=True)
    assert outcome.returncode == 0 and outcome.stdout.startswith("imkd-edge ")


@pytest.mark.parametrize(
    "arguments", [["nosuchverb"], ["infer"], ["infer", "synth", "--nosuch"], ["bench", "tiny", "--frames", "0"]]
)
def test_a_wrong_call_is_usage(run, arguments: list[str]) -> None:
    outcome = run(*arguments)
    assert outcome.code == 2
    assert outcome.stdout == ""
    assert outcome.stderr
