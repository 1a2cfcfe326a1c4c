"""The report of a check as one self-contained page to look at."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from imkd_edge.bundle.files import write_atomically
from imkd_edge.checks.contract import spaced
from imkd_edge.checks.data.radar import newest_in_ego
from imkd_edge.checks.data.report import Report, number_of, shortened
from imkd_edge.errors import Code, Error
from imkd_edge.progress import Track
from imkd_edge.sources.base import Source
from imkd_edge.sources.recording.evidence import SLOWEST
from imkd_edge.view.page import document, element, text_table

PICTURES = 4  # frames that are drawn, evenly spaced
QUALITY = 85  # of a JPEG
NOTES = {  # title of a table -> what its columns mean
    "Classes": "size: medians of length, width, height; 99 % are within that distance and below that speed",
    "Sensors": "offset: from the frame's time, median (least to most); useful: share of a camera's pixels that look at "
    "the ground or at objects on it, within 51.2 m",
    "Radars": "medians (1 % to 99 %); ego speed: how much of it the velocities of static returns hold; × 1 is right "
    f"for raw and aliased velocities, × 0 for compensated ones; unknown below {SLOWEST:g} m/s or of too few returns",
    "Ground plane": "the rig's, beside that of LiDAR or radar returns of the ground where they have heights",
}
INTRODUCTION = (
    "E is an error: it cannot be right, and the exit code is 1. W is a warning: unusual, and maybe right. In the "
    "pictures the returns of one object lie on it, and boxes enclose what they name. The bird's-eye view colours "
    "returns by velocity where all radars are compensated (blue approaches, red recedes), else by intensity."
)


def write_page(path: Path, report: Report, source: Source | None, track: Track | None = None) -> None:
    """Writes the page completely or not at all.

    Args:
        path: of the HTML file.
        report: of `check`.
        source: draws its frames; None: no pictures.
        track: wraps the frames that are drawn, for a progress bar.
    Raises:
        Error: write_failed; missing_extra without OpenCV.
    """
    write_atomically(path, page(report, list(pictures(report, source, track))).encode())


def page(report: Report, frames: list[np.ndarray]) -> str:
    """The page as text, with pictures (H, W, 3) uint8 RGB."""
    title = f"{Path(report.source).name}: {number_of(report.frames, 'frame')}, {report.verdict()}"
    parts = [
        element("p", f"{report.kind}, {number_of(report.scenes, 'scene')}, {report.labelled} of {report.counted} "
                f"frames labelled; {report.read_text()}."),
        element("p", INTRODUCTION),
        element("h2", "Findings"),
        _findings(report),
        *(_section(name, *table) for name, table in tables(report).items()),
        element("h2", "Frames"),
        *(_picture(frame) for frame in frames),
    ]  # fmt: skip
    return document(title, parts, report.to_dict())


def tables(report: Report) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Title -> columns and rows of what was counted and measured, without empty columns; NOTES explain them."""
    result = {
        "Splits": (["split", "frames", "labelled", "objects"], _split_rows(report)),
        "Classes": (
            ["class", "objects", "size m", "within m", "speed m/s", "LiDAR misses"],
            _class_rows(report),
        ),
        "Sensors": (["sensor", "frames", "offset s", "height m", "view °", "useful"], _sensor_rows(report)),
        "Radars": (["radar", "points", "intensity dB", "velocity", "ego speed"], _radar_rows(report)),
        "Ground plane": (["from", "plane z = ax + by + c", "height off m", "tilt off °"], _ground_rows(report)),
    }
    return {title: _filled(*table) for title, table in result.items() if table[1]}


def _filled(columns: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    kept = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    return [columns[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _split_rows(report: Report) -> list[list[str]]:
    rows = []
    for split, entry in report.splits.items():
        objects = ", ".join(f"{count} {label}" for label, count in entry["objects"].items())
        rows.append([split, str(entry["frames"]), str(entry["labelled"]), objects or "none"])
    return rows


def _class_rows(report: Report) -> list[list[str]]:
    rows = []
    for label, entry in report.classes.items():
        size = " × ".join(f"{value:.2f}" for value in entry["size"])
        lidar = entry.get("without_lidar")
        speed = _number(entry["speed_p99"])
        share = "" if lidar is None else f"{100 * lidar:.0f} %"
        rows.append([label, str(entry["objects"]), size, f"{entry['distance_p99']:g}", speed, share])
    return rows


def _sensor_rows(report: Report) -> list[list[str]]:
    rows = []
    for name, entry in report.sensors.items():
        mount = report.rig.get(name, {})
        view = [f"{mount['view_degrees']:g}", f"{100 * mount['across']:.0f} %"] if "across" in mount else ["", ""]
        offset = entry.get("offset")
        offsets = f"{offset['median']:.3f} ({offset['min']:.3f} to {offset['max']:.3f})" if offset else ""
        rows.append([name, str(entry.get("frames", "")), offsets, _number(mount.get("height")), *view])
    return rows


def _radar_rows(report: Report) -> list[list[str]]:
    rows = []
    for name, entry in report.radars.items():
        points, intensity = (f"{entry[key]['p50']:g} ({entry[key]['p1']:g} to {entry[key]['p99']:g})"
                             for key in ("points", "intensity"))  # fmt: skip
        share = entry["ego_motion_share"]
        rows.append([name, points, intensity, entry["velocity"], "unknown" if share is None else f"× {share:.2f}"])
    return rows


def _ground_rows(report: Report) -> list[list[str]]:
    if not report.ground:
        return []
    rows = [["the rig", _plane(report.ground["named"]), "", ""]]
    for sensor in ("lidar", "radar"):
        if entry := report.ground.get(sensor):
            rows.append([sensor, _plane(entry["plane"]), *(
                f"{entry[off]:.2f}" + ("" if entry[by] is None else f" ± {entry[by]:.2f}")
                for off, by in (("height_off", "height_error"), ("tilt_off", "tilt_error"))
            )])  # fmt: skip
    return rows


def _plane(values: list[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.2f}"


def _findings(report: Report) -> str:
    if not report.findings:
        return element("p", "None.")
    items = []
    for finding in shortened(report.findings):
        if isinstance(finding, str):
            items.append(element("li", finding))
            continue
        what = html.escape(f"{finding.what} ({finding.where})")
        head = html.escape(f"{finding.code} {finding.topic}")
        items.append(f"<li><b>{head}</b>: {what}<br/>{html.escape(finding.fix)}</li>")
    return f"<ul>{''.join(items)}</ul>"


def _section(title: str, columns: list[str], rows: list[list[str]]) -> str:
    note = element("p", NOTES[title]) if title in NOTES else ""
    return element("h2", title) + note + text_table(columns, rows)


def pictures(report: Report, source: Source | None, track: Track | None = None) -> Iterator[np.ndarray]:
    """Pictures of a few frames; a frame that cannot be read is left out: it is among the findings."""
    from imkd_edge.view.draw.projection import projections

    names = [] if source is None else spaced(source.names, PICTURES)
    for name in track(names) if track else names:
        try:
            sample = source[name]  # type: ignore[index]
        except Error:
            continue
        yield projections(sample, newest_in_ego(sample, sample.motion()))


def _picture(frame: np.ndarray) -> str:
    import cv2

    encoded, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not encoded:
        raise Error(Code.write_failed, "a picture could not be encoded as JPEG", "", "check the free memory")
    text = base64.b64encode(data.tobytes()).decode()
    return f'<p><img alt="radar returns and boxes" style="width: 100%" src="data:image/jpeg;base64,{text}"/></p>'
