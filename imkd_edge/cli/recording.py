"""What is in a recording, as tables for people."""

from __future__ import annotations

import shlex
from pathlib import Path, PurePath
from typing import Any

from rich.markup import escape

from imkd_edge.cli.common import log, out
from imkd_edge.cli.report import make_table
from imkd_edge.sources.recording.source import map_beside


def show_recording(content: dict[str, Any]) -> None:
    """Topics, frames, the guessed topic map and what in it is doubtful."""
    name = PurePath(content["path"]).name
    parts = f", in {content['parts']} parts: the clock steps back" if content["parts"] > 1 else ""
    title = f"recording {escape(name)}: {content['messages']} messages in {content['duration_s']:.1f} s{parts}"
    topics = make_table(title, "topic", ">messages", ">Hz", "what it is")
    topics.columns[0].no_wrap = True
    for row in content["topics"]:
        rate = "" if row["rate_hz"] is None else f"{row['rate_hz']:g}"
        topics.add_row(*(escape(text) for text in (row["topic"], str(row["messages"]), rate, _what(row))))
    out().print(topics)
    if content["damage"]:
        out().print(f"[yellow]damaged[/]: {escape(content['damage'])}")
    out().print(f"frames of TF: {escape(', '.join(content['frames'])) or 'none'}")
    for number, (sensor, example) in enumerate(content["examples"].items()):
        if number == 0:
            _show_points(sensor, example["points"])
        out().print(f"{escape(sensor)}: {escape(example['evidence'])}")
    for doubt in content["doubts"]:
        out().print(f"[yellow]to be checked[/]: {escape(doubt)}")
    if content["written"]:
        beside = map_beside(Path(content["path"])) == Path(content["written"])
        use = "it is read with the recording" if beside else f"add --option map={shlex.quote(content['written'])}"
        log().print(f"wrote {content['written']}: correct it; {use}")
    elif content["map_file"]:
        log().print(f"topic map: {content['map_file']}, which is read with the recording; correct it where it is wrong")
    elif content["map"]:
        out().print("\n" + content["map"], markup=False, soft_wrap=True)
        file = shlex.quote(str(PurePath(content["path"]).with_suffix(".toml")))
        log().print(f"--map {file} writes this topic map, which is read with the recording beside it")


def _what(row: dict[str, Any]) -> str:
    """The use of a topic and its content; the type, too, of one that is not used."""
    if row["use"] in ("not used", "not read"):
        return ", ".join(part for part in (f"{row['use']}: {row['schema']}", row["content"]) if part)
    return ", ".join(part for part in (row["use"], row["content"]) if part)


def _show_points(sensor: str, points: list[dict[str, float]]) -> None:
    if points:
        rows = make_table(f"points of {escape(sensor)}", *(f">{name}" for name in points[0]))
        for point in points:
            rows.add_row(*(f"{value:.2f}" for value in point.values()))
        out().print(rows)
