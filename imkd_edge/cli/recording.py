"""What is in a recording, as tables for people."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import Any

from rich.markup import escape

from imkd_edge.cli.common import log, out
from imkd_edge.cli.report import _table as table


def show_recording(content: dict[str, Any]) -> None:
    """Topics, frames, the guessed topic map and what in it is doubtful."""
    name, minutes = PurePath(content["path"]).name, content["duration_s"] / 60
    parts = f", in {content['parts']} parts: the clock steps back" if content["parts"] > 1 else ""
    title = f"recording {escape(name)}: {content['messages']} messages in {minutes:.1f} min{parts}"
    topics = table(title, "topic", "type", ">messages", ">Hz", "frame", "use", "content")
    for row in content["topics"]:
        rate = "" if row["rate_hz"] is None else f"{row['rate_hz']:g}"
        texts = [
            row["topic"],
            row["schema"],
            str(row["messages"]),
            rate,
            row["frame"] or "",
            row["use"],
            row["content"],
        ]
        topics.add_row(*(escape(text) for text in texts))
    out().print(topics)
    if content["damage"]:
        out().print(f"[yellow]damaged[/]: {escape(content['damage'])}")
    out().print(f"frames of TF: {escape(', '.join(content['frames'])) or 'none'}")
    for sensor, example in content["examples"].items():
        _show_example(sensor, example)
    for doubt in content["doubts"]:
        out().print(f"[yellow]to be checked[/]: {escape(doubt)}")
    if content["written"]:
        log().print(f"wrote {content['written']}: correct it, then add --option map={shlex.quote(content['written'])}")
    elif content["map"]:
        out().print(f"\n{escape(content['map'])}")
        file = shlex.quote(str(PurePath(content["path"]).with_suffix(".toml")))
        log().print(f"--map {file} writes this topic map, which is read with the recording beside it")


def _show_example(sensor: str, example: dict[str, Any]) -> None:
    if example["points"]:
        points = table(f"points of {escape(sensor)}", *(f">{name}" for name in example["points"][0]))
        for point in example["points"]:
            points.add_row(*(f"{value:.2f}" for value in point.values()))
        out().print(points)
    if example["evidence"]:
        out().print(f"{escape(sensor)}: {escape(example['evidence'])}")
