"""What every verb shares: where output goes, exit codes, errors without a traceback, progress bars."""

from __future__ import annotations

import codecs
import copy
import functools
import importlib
import inspect
import io
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from typer.models import ArgumentInfo

from imkd_edge.errors import Code, Error
from imkd_edge.options import declared, option_name

OK, GATE_FAILED, USAGE, ENVIRONMENT, BUNDLE_REFUSED = range(5)  # exit codes
INTERRUPTED = 130  # exit code after Ctrl-C or SIGTERM
BUG = 70  # exit code of an unexpected exception, after its traceback: EX_SOFTWARE of sysexits.h
_EXIT_OF_NOUN = {1: USAGE, 2: USAGE, 3: USAGE, 4: BUNDLE_REFUSED, 5: ENVIRONMENT, 6: USAGE, 7: ENVIRONMENT}

Json = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on standard output; the log goes to standard error.")
]
SourceName = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A recording: a drive folder, an MCAP file, a ROS 2 bag, a folder of videos, a data set (Astyx, nuScenes, "
        "TruckScenes, View-of-Delft, KITTI), or synth[:SEED], the synthetic world.",
    ),
]
Threads = Annotated[int, typer.Option(min=0, help="Threads of our ops and of the engine; 0 is one per core.")]
SourceOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option", metavar="KEY=VALUE", help="Option of the source's reader, such as scenes=68 of synth; repeatable."
    ),
]

Item = TypeVar("Item")


class _Output(Console):
    """Passes a closed pipe on to `verb`; rich would exit with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def out() -> Console:
    """Standard output, for results only."""
    return _Output(highlight=False, soft_wrap=False)


def log() -> Console:
    """Standard error, for the log."""
    return _Output(stderr=True, highlight=False, soft_wrap=True)


_ASCII = str.maketrans({"×": "x", "°": " deg", "µ": "u", "±": "+-", "−": "-", "–": "-", "…": "...", "²": "2"})


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Codec error handler: a near ASCII form where there is one, else a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_ASCII)
    return "".join(letter if letter.isascii() else "?" for letter in text), error.end


def adapt_streams() -> None:
    """Prints a warning as one line, and lets both standard streams take any text.

    A letter that a stream's encoding lacks is written in near ASCII letters. What goes to a stream that was closed
    before the start is discarded.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  (for the process's life)
    warnings.formatwarning = lambda message, *location: f"warning: {message}\n"
    codecs.register_error("imkd-ascii", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="imkd-ascii")


def exit_code(code: str) -> int:
    """The exit code for an error code such as "E0407": the hundreds digit is the noun at fault."""
    return _EXIT_OF_NOUN.get(int(code[1:]) // 100, ENVIRONMENT)


def parse_options(pairs: list[str] | None) -> dict[str, Any]:
    """["scenes=68", "lidar=true"] as {"scenes": 68, "lidar": True}; a value that is not JSON is text."""
    options: dict[str, Any] = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key.isidentifier():
            raise Error(
                Code.spec_bad_value, f"{pair!r} is not KEY=VALUE", "--option", "write for example --option scenes=68"
            )
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return options


def finite(value: float | None) -> float | None:
    """Callback of numeric options: refuses NaN, with which every comparison is false, and infinity."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number")
    return value


def filled(value: str | None) -> str | None:
    """Callback of text options: refuses an empty text, as a variable that is not set gives."""
    if value == "":
        raise typer.BadParameter("it is empty; give a value, or leave the option out")
    return value


def refuse(options: Mapping[str, Any], what: str, fix: str) -> None:
    """Raises Error spec_bad_value where an option that would be ignored is not None, False, "auto" or empty."""
    used = [name for name, value in options.items() if not (value is None or value is False or value in ("auto", []))]
    if used:
        raise Error(Code.spec_bad_value, what, ", ".join(used), fix)


def examples(*commands: str) -> str:
    """The end of a verb's help."""
    return "\n\n".join(["Examples:", *commands])


def print_json(value: Any, line: bool = False) -> None:
    """Strict JSON on standard output: numbers that are not finite become null."""
    from imkd_edge.bundle.files import strict_json

    # An encoding that lacks a letter would replace it; JSON can escape it.
    ascii_only = "utf" not in (sys.stdout.encoding or "utf-8").lower()
    text = strict_json(value, indent=None if line else 2, ensure_ascii=ascii_only)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def verb(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a command of a function.

    A parameter whose type is a dataclass of `imkd_edge.options` becomes one option for each of its fields. An Error,
    OSError or MemoryError becomes one line on standard error and an exit code.
    """
    groups = _option_groups(function)

    @functools.wraps(function)
    def wrapped(**kwargs: Any) -> None:
        try:
            status = _system_errors(function, **_grouped(groups, kwargs))
        except Error as error:
            sys.stderr.write(f"{error}\n")
            raise typer.Exit(exit_code(error.code)) from None
        except BrokenPipeError:  # the reader, such as head, has closed the pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(OK) from None
        except KeyboardInterrupt:
            sys.stderr.write("interrupted\n")
            raise typer.Exit(INTERRUPTED) from None
        if status:
            raise typer.Exit(status)

    wrapped.__signature__ = _flat_signature(function, groups)  # type: ignore[attr-defined]  # read by typer
    return wrapped


def _option_groups(function: Callable[..., Any]) -> dict[str, type]:
    """Parameter -> dataclass of options."""
    hints = get_type_hints(function)
    return {name: kind for name, kind in hints.items() if isinstance(kind, type) and is_dataclass(kind)}


def _grouped(groups: Mapping[str, type], values: dict[str, Any]) -> dict[str, Any]:
    """Moves the values of fields into their option objects."""
    for name, kind in groups.items():
        members = {field.name: values.pop(field.name) for field in fields(kind) if field.name in values}
        members = {key: tuple(value) if isinstance(value, list) else value for key, value in members.items()}
        values[name] = kind(**{key: value for key, value in members.items() if value is not None})
    return values


def _flat_signature(function: Callable[..., Any], groups: Mapping[str, type]) -> inspect.Signature:
    hints = get_type_hints(function, include_extras=True)
    parameters = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in groups:
            parameters += _field_parameters(groups[name])
        else:
            annotation = _with_metavar(name, hints[name])
            parameters.append(parameter.replace(annotation=annotation, kind=inspect.Parameter.KEYWORD_ONLY))
    return inspect.Signature(parameters)


def _with_metavar(name: str, annotation: Any) -> Any:
    """The annotation of a parameter, whose declaration may be shared by verbs, with a metavar where it has none."""
    if get_origin(annotation) is not Annotated:
        return annotation
    base, declaration = get_args(annotation)
    if declaration.metavar is not None:
        return annotation
    declaration = copy.copy(declaration)
    declaration.metavar = name.upper() if isinstance(declaration, ArgumentInfo) else _metavar(base)
    return Annotated[base, declaration]


def _metavar(kind: Any) -> str | None:
    """What stands behind an option in a help text: nothing behind a flag, N for whole numbers, X for others."""
    names = {
        "": (bool,),
        "N": (int, int | None),
        "X": (float, float | None),
        "TEXT": (tuple[str, ...], list[str], list[str] | None),
    }
    return next((name for name, kinds in names.items() if kind in kinds), None)


def _field_parameters(kind: type) -> list[inspect.Parameter]:
    """A typer parameter for each field that has an `Option`."""
    hints, declarations = get_type_hints(kind), declared(kind)
    parameters = []
    for field in fields(kind):
        if field.name not in declarations:
            continue
        base, option = hints[field.name], declarations[field.name]
        declaration = typer.Option(
            option.name or option_name(field.name),
            help=option.help,
            min=option.min,
            max=option.max,
            metavar=_metavar(base) if option.metavar is None else option.metavar,
            callback=finite if base in (float, float | None) else filled if base in (str, str | None) else None,
        )
        repeatable = base == tuple[str, ...]
        annotation: Any = Annotated[list[str] | None if repeatable else base, declaration]  # type: ignore[valid-type]
        default = None if repeatable else field.default
        parameters.append(
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        )
    return parameters


def _system_errors(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls a function; an OSError or MemoryError becomes an Error of the environment."""
    try:
        return function(*args, **kwargs)
    except BrokenPipeError:
        raise
    except OSError as error:
        fix = "check that the file exists, may be read and written, and that the disk has space"
        raise Error(
            Code.write_failed, f"the system refuses: {error.strerror or error}", str(error.filename or ""), fix
        ) from error
    except MemoryError as error:
        what = f"not enough memory: {error}".rstrip(": ")
        raise Error(Code.device_unavailable, what, "", "give the process more memory, or less data") from error


def track(items: Iterable[Item], total: int, title: str) -> Iterator[Item]:
    """Yields the items with a progress bar on standard error, where that is a terminal."""
    console = log()
    if not console.is_terminal or total < 2:
        yield from items
        return
    with _progress(console) as progress:
        task = progress.add_task(title, total=total)
        for item in items:
            yield item
            progress.advance(task)


def bar(title: str) -> Callable[[Any], Iterator[Any]]:
    """A function that wraps a sequence in a progress bar."""
    return lambda items: track(items, len(items), title)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)


class Phases:
    """One progress bar for each running phase; phases are nested."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def start(self, phase: str, steps: int) -> None:
        """Shows a bar for a phase, indented below the running ones."""
        self._tasks[phase] = self._progress.add_task("  " * len(self._tasks) + phase, total=steps)

    def step(self, phase: str, step: int) -> None:
        """Advances a phase's bar; steps count from 0."""
        self._progress.update(self._tasks[phase], completed=step + 1)

    def finish(self, phase: str) -> None:
        """Removes a phase's bar."""
        self._progress.remove_task(self._tasks.pop(phase))


@contextmanager
def phases() -> Iterator[Phases | None]:
    """Progress bars on standard error for work in nested phases, where that is a terminal; else None."""
    console = log()
    if not console.is_terminal:
        yield None
        return
    with _progress(console) as progress:
        yield Phases(progress)


def import_extra(module: str, extra: str) -> ModuleType:
    """Imports a module that needs an extra.

    Raises:
        Error: missing_extra where a package of the extra, or a module of imkd_edge, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "imkd_edge":
            what, fix = f"this installation lacks {error.name}", "pip install --force-reinstall imkd-edge"
            raise Error(Code.missing_extra, what, module, fix) from error
        what = f"this needs {error.name}, which is not installed"
        raise Error(Code.missing_extra, what, module, f'pip install "imkd-edge[{extra}]"') from error
