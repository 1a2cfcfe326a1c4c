"""Options of the long verbs: the command line shows every field, has its default, and refuses what is out of limits."""

from __future__ import annotations

import functools
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
from typer.testing import CliRunner

from imkd_edge import options
from imkd_edge.cli import app, common
from imkd_edge.options import (
    BenchOptions,
    BuildOptions,
    CheckOptions,
    CompareOptions,
    ConvertOptions,
    EvalOptions,
    InferOptions,
    InitOptions,
    LabelOptions,
    LiveOptions,
    Option,
    QuantizeOptions,
    RunOptions,
    TrainOptions,
    changed,
    option_name,
)

KINDS = [kind for name, kind in vars(options).items() if name.endswith("Options")]
VERBS: dict[str, set[type]] = {  # verb -> its option classes
    "infer": {InferOptions, RunOptions},
    "bench": {BenchOptions, RunOptions},
    "build-engine": {BuildOptions},
    "convert": {ConvertOptions},
    "train": {TrainOptions},
    "quantize": {QuantizeOptions},
    "compare": {CompareOptions},
    "eval": {EvalOptions, RunOptions},
    "check": {CheckOptions},
    "init": {InitOptions},
    "label": {LabelOptions},
    "run": {LiveOptions, RunOptions},
}
REQUIRED = {  # arguments without which a verb does not start
    "infer": ["synth"],
    "bench": [],
    "build-engine": ["tiny"],
    "convert": ["synth", "--to", "drive"],
    "train": ["tiny"],
    "quantize": ["tiny", "--data", "synth", "--out", "x.imkd"],
    "compare": ["tiny", "tiny"],
    "eval": ["tiny", "--data", "synth"],
    "check": ["synth"],
    "init": ["synth", "--out", "x.toml"],
    "label": ["synth", "--teacher", "runs/x", "--to", "x"],
    "run": ["tiny", "--data", "synth"],
}


def on_command_line(kind: type) -> dict[str, tuple[Any, Option]]:
    """Field -> type and Option, of the fields that have an Option."""
    hints = get_type_hints(kind, include_extras=True)
    return {field: get_args(hint) for field, hint in hints.items() if get_origin(hint) is Annotated}


FIELDS = [
    (verb, kind, field)
    for verb, kinds in VERBS.items()
    for kind in sorted(kinds, key=lambda kind: kind.__name__)
    for field in on_command_line(kind)
]


def name_of(kind: type, field: str) -> str:
    """The option of a field, such as "--frame"."""
    return on_command_line(kind)[field][1].name or option_name(field)


@functools.cache
def help_rows(verb: str) -> dict[str, str]:
    """Option -> its row of the verb's --help, on a terminal so wide that no row is wrapped."""
    outcome = CliRunner(env={"COLUMNS": "400"}).invoke(app, [verb, "--help"])
    rows = [line.strip("│ *") for line in outcome.stdout.splitlines()]
    return {row.split()[0]: row for row in rows if row.startswith("--")}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments that verbs pass to their functions, which are not called."""
    arguments: list[dict[str, Any]] = []

    def record(function: Any, **values: Any) -> int:
        arguments.append(values)
        return common.OK

    monkeypatch.setattr(common, "_system_errors", record)
    return arguments


def test_every_option_class_belongs_to_a_verb() -> None:
    assert set().union(*VERBS.values()) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_field_has_a_default_of_its_type(kind: type) -> None:
    assert all(field.default is not MISSING for field in fields(kind))
    for field, (hint, _) in on_command_line(kind).items():
        allowed = [get_origin(entry) or entry for entry in (get_args(hint) if NoneType in get_args(hint) else [hint])]
        assert isinstance(getattr(kind(), field), tuple(allowed))


# ---- --help ----
@pytest.mark.parametrize(("verb", "kind", "field"), FIELDS)
def test_help_has_a_row_for_every_field(verb: str, kind: type, field: str) -> None:
    assert on_command_line(kind)[field][1].help in help_rows(verb)[name_of(kind, field)]


@pytest.mark.parametrize(("verb", "kind", "field"), FIELDS)
def test_help_shows_the_default(verb: str, kind: type, field: str) -> None:
    """None, an empty list and a flag that is off are the absence of the option: help does not show them."""
    default, row = getattr(kind(), field), help_rows(verb)[name_of(kind, field)]
    if default is None or default is False or default == ():
        assert "[default: " not in row
    else:
        assert f"[default: {default}]" in row


@pytest.mark.parametrize(("verb", "kind", "field"), FIELDS)
def test_help_shows_the_limits(verb: str, kind: type, field: str) -> None:
    option, row = on_command_line(kind)[field][1], help_rows(verb)[name_of(kind, field)]
    if option.min is not None and option.max is not None:
        assert f"[{option.min}<=x<={option.max}]" in row
    elif option.min is not None:
        assert f"[x>={option.min}]" in row
    else:
        assert option.max is None and "[x" not in row and "<=x" not in row


# ---- values ----
@pytest.mark.parametrize("verb", VERBS)
def test_defaults_of_the_command_line_are_those_of_the_class(run, calls: list[dict[str, Any]], verb: str) -> None:
    assert run(verb, *REQUIRED[verb]).code == 0
    objects = {type(value): value for value in calls[0].values() if is_dataclass(value)}
    assert objects == {kind: kind() for kind in VERBS[verb]}


def test_values_of_the_command_line_reach_their_fields(run, calls: list[dict[str, Any]]) -> None:
    run("infer", "synth", "--frame", "a", "--frame", "b", "--save", "--score", "0.5", "--out", "o", "--threads", "2")
    assert calls[0]["options"] == InferOptions(frame=("a", "b"), save=True, score=0.5, out=Path("o"))
    assert calls[0]["run"] == RunOptions(threads=2)
    run("build-engine", "tiny", "--workspace", "512", "--timing-cache", "t")
    assert calls[1]["options"] == BuildOptions(workspace_mb=512, timing_cache=Path("t"))


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    ("verb", "kind", "field"),
    [case for case in FIELDS if on_command_line(case[1])[case[2]][0] in (float, float | None)],
)
def test_number_that_is_not_finite_is_refused(
    run, calls: list[dict[str, Any]], verb: str, kind: type, field: str, value: str
) -> None:
    option = name_of(kind, field)
    outcome = run(verb, *REQUIRED[verb], f"{option}={value}")
    assert outcome.code == 2 and option in outcome.stderr
    assert outcome.stdout == "" and not calls


@pytest.mark.parametrize(
    ("verb", "kind", "field"), [case for case in FIELDS if on_command_line(case[1])[case[2]][1].min is not None]
)
def test_limits_are_allowed_and_values_beyond_are_refused(
    run, calls: list[dict[str, Any]], verb: str, kind: type, field: str
) -> None:
    option = on_command_line(kind)[field][1]
    limits = [limit for limit in (option.min, option.max) if limit is not None]
    for limit in limits:
        assert run(verb, *REQUIRED[verb], f"{name_of(kind, field)}={limit}").code == 0
    for value in [limit + step for limit, step in zip(limits, (-1, 1), strict=False)]:
        outcome = run(verb, *REQUIRED[verb], f"{name_of(kind, field)}={value}")
        assert outcome.code == 2 and name_of(kind, field) in outcome.stderr
    assert len(calls) == len(limits)


# ---- changed ----
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_nothing_is_changed_by_default(kind: type) -> None:
    assert changed(kind()) == {}


def test_changed_names_the_options_that_differ_from_their_default() -> None:
    assert changed(InferOptions(frame=("a",), save=True, theme="dark")) == {"--frame": ("a",), "--save": True}
    assert changed(EvalOptions(per_range=True, split="val", score=0.3)) == {"--per-range": True, "--score": 0.3}
    assert changed(RunOptions(threads=4, device="cpu")) == {"--device": "cpu", "--threads": 4}
    assert changed(BenchOptions(warmup=0)) == {"--warmup": 0}
    assert changed(BuildOptions(workspace_mb=64)) == {"--workspace": 64}
