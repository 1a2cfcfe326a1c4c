"""The verbs of one's own recordings: convert, check, init."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from imkd_edge.checks.data.page import NOTES, tables
from imkd_edge.checks.data.report import Finding, Report, number_of, shortened
from imkd_edge.cli import report
from imkd_edge.cli.common import (
    GATE_FAILED,
    OK,
    Json,
    SourceName,
    SourceOptions,
    bar,
    examples,
    import_extra,
    log,
    out,
    parse_options,
    print_json,
    verb,
)
from imkd_edge.options import CheckOptions, ConvertOptions, InitOptions

_COLORS = {"error": "bold red", "warning": "yellow", "ok": "green"}


def register(app: typer.Typer) -> None:
    """Adds the verbs to the application."""
    app.command(
        "convert",
        epilog=examples(
            "imkd-edge convert monday.mcap tuesday.mcap --to drives/yard",
            "imkd-edge convert synth --to drives/synth --option scenes=4 --option lidar=true --json",
        ),
    )(convert)
    app.command(
        "check",
        epilog=examples("imkd-edge check drives/yard --html yard.html", "imkd-edge check synth --limit 20 --json"),
    )(check)
    app.command(
        "init",
        epilog=examples(
            "imkd-edge init drives/yard --out yard.toml",
            "imkd-edge init recordings/astyx --size lite --split train --out mine.toml --json",
        ),
    )(init)


@verb
def convert(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Drive folders, MCAP files or ROS 2 bags, folders of videos, of Astyx, nuScenes, TruckScenes, "
            "View-of-Delft or KITTI, or synth[:SEED]; several become one folder, with a scene or more each.",
        ),
    ],
    to: Annotated[Path, typer.Option(help="The drive folder to write; of an interrupted run it is continued.")],
    options: ConvertOptions,
    option: SourceOptions = None,
    json: Json = False,
) -> int:
    """Write any source, or several as one, as a drive folder, the documented format for one's own recordings."""
    from imkd_edge.sources.convert import convert as write

    result = write(sources, to, options, source_options=parse_options(option), track=bar("convert"))
    if json:
        print_json(result)
    else:
        report.show_numbers("drive folder", result)
        log().print(f"next: imkd-edge check {to}")
    return OK


@verb
def check(source: SourceName, options: CheckOptions, option: SourceOptions = None, json: Json = False) -> int:
    """Check recordings: counts, times, labels, radars, images, rig, ground; exit code 1 where something is wrong."""
    from imkd_edge.checks.data import check as examine

    result = examine(source, options, source_options=parse_options(option), track=bar("check"))
    if json:
        print_json(result.to_dict())
    else:
        show_report(result)
        if options.html:
            log().print(f"page: {options.html}")
    return GATE_FAILED if result.status == "error" else OK


@verb
def init(
    source: SourceName,
    to: Annotated[Path, typer.Option("--out", help="The config to write, a new TOML file.")],
    options: InitOptions,
    option: SourceOptions = None,
    json: Json = False,
) -> int:
    """Write a commented config for imkd-edge train that fits recordings: cameras, grid, radar features, classes."""
    module = import_extra("imkd_edge.training.init", "train")
    result = module.init(source, to, options, source_options=parse_options(option), track=bar("init"))
    if json:
        print_json(result)
    else:
        report.show_numbers("config", result)
        log().print(f"next: imkd-edge train {to}")
    return OK


def show_report(result: Report) -> None:
    """What was counted and measured, then the findings."""
    scenes = number_of(result.scenes, "scene")
    frames = f"{number_of(result.frames, 'frame')} in {scenes}, {result.labelled} of {result.counted} labelled"
    out().print(escape(f"{result.source} ({result.kind}): {frames}; {result.read_text()}"))
    for title, (columns, rows) in tables(result).items():
        table = report.make_table(escape(title), *columns)
        for row in rows:
            table.add_row(*(escape(value) for value in row))
        out().print(table)
        if title in NOTES:
            out().print(f"[dim]{escape(NOTES[title])}[/]\n")
    if result.findings:
        findings = report.make_table("Findings", "code", "finding")
        for finding in shortened(result.findings):
            findings.add_row(*_row(finding))
        out().print(findings)
    out().print(f"[{_COLORS[result.status]}]{result.status}[/]: {result.verdict()}")


def _row(finding: Finding | str) -> tuple[str, str]:
    if isinstance(finding, str):
        code, _, text = finding.partition(" ")
        return code, escape(text)
    color = _COLORS["error" if finding.is_error else "warning"]
    text = f"[bold]{escape(finding.topic)}[/], {escape(finding.where)}: {escape(finding.what)}"
    return f"[{color}]{finding.code}[/]", f"{text}\n[bold]fix:[/] {escape(finding.fix)}"
