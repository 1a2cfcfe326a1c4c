"""Renders a benchmark as one self-contained HTML page: histogram, timeline, stages, telemetry, environment."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.bench.memory import memory_line
from imkd_edge.bench.telemetry import label
from imkd_edge.bench.throttling import throttling_line
from imkd_edge.bundle.files import write_atomically
from imkd_edge.view.page import HEIGHT, WIDTH, document, element, svg

LEFT, BOTTOM = 60, 30


def write_page(result: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes the page completely or not at all.

    Args:
        result: from `bench`, with "series".
        path: of the HTML file.

    Raises:
        Error: write_failed for an error of the disk.
    """
    write_atomically(Path(path), page(result).encode())


def page(result: Mapping[str, Any]) -> str:
    """The page as text."""
    data = {name: value for name, value in result.items() if name != "series"}
    title = f"{result['bundle']}: {result['engine']} on {result['device']}, {result['frames']} frames"
    parts = [
        f"<p>{html.escape(_summary(result))}</p>",
        "<h2>Frames by their time, ms</h2>",
        histogram(result["series"]["total_ms"], result["total_ms"]),
        "<h2>Time of a frame, ms, over the run, s</h2>",
        timeline(result["series"]["at_s"], result["series"]["total_ms"], result["deadline"]),
        f"<h2>Stages, ms, of {result['stage_frames']} frames: the bar is the median, the line p99</h2>",
        stage_bars(result["stages_ms"]),
        "<h2>Percentiles, ms</h2>",
        table({**result["stages_ms"], "total": result["total_ms"]}),
        "<h2>Telemetry</h2>",
        table({label(name): row for name, row in result["telemetry"].items()})
        if result["telemetry"]
        else "<p>None.</p>",
        element("p", throttling_line(result["throttling"])),
        element("p", memory_line(result["memory"])),
        "<h2>Environment</h2>",
        *(element("div", f"{name}: {value}") for name, value in result["environment"].items()),
    ]
    return document(title, parts, data)


def _summary(result: Mapping[str, Any]) -> str:
    total = result["total_ms"]
    text = f"p50 {total['p50']:.2f} ms, p99 {total['p99']:.2f} ms, p99.9 {total['p99.9']:.2f} ms"
    text += f"; {result['fps']:.1f} frames/s"
    if deadline := result["deadline"]:
        text += (
            f"; {deadline['missed']} missed their deadline, {deadline['deadline_ms']:.1f} ms from when they were due"
        )
    return text


def histogram(values: list[float], marks: Mapping[str, float], bins: int = 80) -> str:
    """A histogram of the frames' times, clamped at p99.9.

    Args:
        values: times, ms.
        marks: "p50", "p99" and "p99.9", ms, drawn as lines.
        bins: number of bars.
    """
    low, high = min(values), max(marks["p99.9"], min(values) + 1e-3)
    counts, _ = np.histogram(np.minimum(values, high), bins=bins, range=(low, high))
    step = (WIDTH - LEFT) / bins
    bars = "".join(
        f'<rect class="bar" x="{LEFT + i * step:.1f}" width="{step - 1:.1f}" y="{_y(count, counts.max()):.1f}" '
        f'height="{HEIGHT - BOTTOM - _y(count, counts.max()):.1f}"/>'
        for i, count in enumerate(counts)
    )
    positions = [(LEFT + (WIDTH - LEFT) * (marks[name] - low) / (high - low), name) for name in ("p50", "p99", "p99.9")]
    lines = "".join(_vertical_line(x, name, 20 + 14 * i) for i, (x, name) in enumerate(positions))
    return svg(bars + lines + _axis(low, high, str(counts.max())))


def timeline(at_s: list[float], values: list[float], deadline: Mapping[str, Any] | None) -> str:
    """A curve of the frames' times over the run: the slowest frame of each pixel, with the deadline as a line.

    Args:
        at_s: ends of the frames, s.
        values: their times, ms.
        deadline: from `bench`.
    """
    columns = np.minimum((np.array(at_s) / max(at_s[-1], 1e-9) * (WIDTH - LEFT)).astype(int), WIDTH - LEFT - 1)
    slowest: dict[int, float] = {}
    for column, value in zip(columns.tolist(), values, strict=True):
        slowest[column] = max(value, slowest.get(column, 0.0))
    top = max(values)
    points = " ".join(f"{LEFT + column},{_y(value, top):.1f}" for column, value in sorted(slowest.items()))
    line = f'<polyline class="line" points="{points}"/>'
    if deadline and deadline["deadline_ms"] <= top:
        y = _y(deadline["deadline_ms"], top)
        line += f'<line class="mark" x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
        line += f'<text x="{LEFT + 4}" y="{y - 4:.1f}">deadline</text>'
    return svg(line + _axis(0, at_s[-1], f"{top:.1f}"))


def stage_bars(stages: Mapping[str, Mapping[str, float]]) -> str:
    """A bar per stage: the median, with a line at p99."""
    row, numbers, top = 24, 120, max(max(stage["p99"] for stage in stages.values()), 1e-6)
    scale = (WIDTH - LEFT - 30 - numbers) / top

    def bar(y: int, name: str, stage: Mapping[str, float]) -> str:
        x, p99 = LEFT + 30, LEFT + 30 + stage["p99"] * scale
        return (
            f'<text x="0" y="{y + 16}">{html.escape(name)}</text>'
            f'<rect class="bar" x="{x}" y="{y + 4}" width="{stage["p50"] * scale:.1f}" height="16"/>'
            f'<line class="mark" x1="{p99:.1f}" x2="{p99:.1f}" y1="{y + 2}" y2="{y + 22}"/>'
            f'<text x="{p99 + 8:.1f}" y="{y + 16}">{stage["p50"]:.2f}, p99 {stage["p99"]:.2f}</text>'
        )

    rows = "".join(bar(i * row, name, stage) for i, (name, stage) in enumerate(stages.items()))
    return svg(rows, row * len(stages))


def _y(value: float, top: float) -> float:
    return 10 + (HEIGHT - BOTTOM - 10) * (1 - value / max(top, 1e-9))


def _vertical_line(x: float, name: str, y: int) -> str:
    end = ' text-anchor="end"' if x > WIDTH - 60 else ""
    line = f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="10" y2="{HEIGHT - BOTTOM}"/>'
    return f'{line}<text x="{x + (-3 if end else 3):.1f}" y="{y}"{end}>{name}</text>'


def _axis(low: float, high: float, top: str) -> str:
    y, anchors = HEIGHT - BOTTOM, ("start", "middle", "middle", "middle", "end")
    ticks = "".join(
        f'<text x="{LEFT + (WIDTH - LEFT) * i / 4:.1f}" y="{y + 18}" text-anchor="{anchor}">'
        f"{low + (high - low) * i / 4:.1f}</text>"
        for i, anchor in enumerate(anchors)
    )
    line = f'<line class="axis" x1="{LEFT}" x2="{WIDTH}" y1="{y}" y2="{y}"/>'
    return f'{line}{ticks}<text x="0" y="16">{html.escape(top)}</text><text x="0" y="{y}">0</text>'


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """A table of numbers with two decimals, one line per name."""
    columns = list(next(iter(rows.values())))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("", *columns))
    body = "".join(
        f"<tr><td>{html.escape(name)}</td>{''.join(f'<td>{row[column]:.2f}</td>' for column in columns)}</tr>"
        for name, row in rows.items()
    )
    return f"<table><tr>{head}</tr>{body}</table>"
