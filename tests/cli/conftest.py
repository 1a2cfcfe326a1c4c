"""Runs the command line in this process, with standard output and standard error apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from typer.testing import CliRunner

from imkd_edge.cli import app


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of one call."""

    code: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        """Standard output on one line, because a table's line breaks depend on the length of its paths."""
        return " ".join(self.stdout.split())

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.stdout.splitlines()]


Run = Callable[..., Outcome]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """run("infer", "synth", ...) -> Outcome; an exception other than SystemExit fails the test."""
    monkeypatch.setenv("COLUMNS", "160")

    def call(*arguments: Any) -> Outcome:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert "Traceback" not in result.stderr
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return call
