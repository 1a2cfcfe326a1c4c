"""The verb `run`: a recording as if it were live."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live
from rich.text import Text

from imkd_edge.cli.common import (
    INTERRUPTED,
    Json,
    SourceOptions,
    examples,
    log,
    out,
    parse_options,
    print_json,
    refuse,
    verb,
)
from imkd_edge.cli.device import BundleName
from imkd_edge.cli.outputs import check_results
from imkd_edge.errors import Code, Error
from imkd_edge.options import LiveOptions, RunOptions

if TYPE_CHECKING:
    from imkd_edge.run.loop import Status

RATES = ("max", "real")
REFRESH, LINE = 0.25, 10.0  # s between updates of the status: on a terminal, and as lines of a log


def register(app: typer.Typer) -> None:
    """Adds the verb to the application."""
    app.command(
        "run",
        epilog=examples(
            "imkd-edge run tiny --data synth --limit 20 --save runs/tiny.jsonl --save runs/tiny.mp4",
            "imkd-edge run tiny --data drives/monday.mcap --rate real --save runs/boxes.mcap",
        ),
    )(run)


@verb
def run(
    bundle: BundleName,
    data: Annotated[
        str,
        typer.Option("--data", help="Drive folder, MCAP file, ROS 2 bag, data set or synth[:SEED]."),
    ],
    options: LiveOptions,
    run: RunOptions,
    option: SourceOptions = None,
    json: Json = False,
) -> int:
    """Detect objects in a recording as if it were live, and write the results; Ctrl-C completes the files."""
    from imkd_edge.bundle.format import Bundle
    from imkd_edge.detector import Detector
    from imkd_edge.rig import SensorRig
    from imkd_edge.run.loop import Status
    from imkd_edge.run.loop import run as run_loop
    from imkd_edge.run.sinks import open_sinks
    from imkd_edge.sources.select import select
    from imkd_edge.tracking import Tracker

    _check(data, options)
    rig = None if options.rig is None else SensorRig.load(str(options.rig))
    samples = select(data, options.split, (), options.frames, parse_options(option)).first(options.limit)
    loaded, real_time, status = Bundle.load(bundle, run.trust), options.rate == "real", Status()
    first = rig or samples.source[samples.names[0]].rig
    code = 0
    with Detector(loaded, first, run.device, run.engine, run.threads, options.score) as detector:
        tracker = None if options.no_track else Tracker(detector.spec)
        sinks = open_sinks([Path(name) for name in options.save], real_time, options.view, options.sensors)
        try:
            with _reporter() as report:
                run_loop(detector, samples, sinks, real_time, rig, report, status, tracker, options.tolerance)
        except KeyboardInterrupt:
            code = INTERRUPTED
    if json:
        print_json({"bundle": str(bundle), "data": data, "interrupted": code != 0, **status.to_dict()})
    else:
        out().print(_line(status))
        for name in options.save:
            log().print(f"wrote {name}" if status.frames else f"no frame: {name} is not written")
    return code


def _check(data: str, options: LiveOptions) -> None:
    """Raises Error spec_bad_value for options that cannot be followed, and as `check_results`."""
    if options.rate not in RATES:
        fix = f"choose one of: {', '.join(RATES)}"
        raise Error(Code.spec_bad_value, f"there is no pace {options.rate!r}", "--rate", fix)
    if not any(name.endswith(".mcap") for name in options.save):
        refuse({"--sensors": options.sensors}, "only .mcap files have sensor data", "add --save FILE.mcap")
    for name in options.save:
        check_results(Path(name), data)


@contextmanager
def _reporter() -> Iterator[Callable[[Status], None]]:
    """Shows the status: one changing line on a terminal, else a line of log from time to time."""
    console, shown = log(), time.monotonic()

    def due(seconds: float) -> bool:
        nonlocal shown
        if time.monotonic() - shown < seconds:
            return False
        shown = time.monotonic()
        return True

    if not console.is_terminal:
        yield lambda status: console.print(_line(status)) if due(LINE) else None
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield lambda status: live.update(Text(_line(status)), refresh=True) if due(REFRESH) else None


def _line(status: Status) -> str:
    """Frames, losses, times and the modes of a loop."""
    record = status.to_dict()
    parts = [f"{record['frames']} frames", f"{record['frames_per_s']:.1f}/s"]
    parts += [f"{record[name]} {name}" for name in ("skipped", "undrawn") if record[name]]
    parts += _times("infer", record["infer_ms"]) + _times("latency", record["latency_ms"])
    parts += [f"{mode} {count}" if len(record["modes"]) > 1 else mode for mode, count in record["modes"].items()]
    parts += [f"{fault} {count}" for fault, count in record["faults"].items()]
    parts.append(f"{record['detections']} boxes")
    if status.tracks is not None:
        parts.append(f"{status.tracks} tracks")
    if record["stalled_s"]:
        parts.append(f"source too slow by {record['stalled_s']:.1f} s")
    return " | ".join(parts)


def _times(name: str, times: dict[str, Any] | None) -> list[str]:
    return [] if times is None else [f"{name} p50 {times['p50']:.1f} p99 {times['p99']:.1f} ms"]
