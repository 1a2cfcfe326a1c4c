"""The panels beside the pictures: strongest detections, legend, time of the stages, state of the sensors."""

from __future__ import annotations

import numpy as np

from imkd_edge.view.draw.bev import (
    APPROACHING,
    INTENSITY,
    RECEDING,
    SPEED_LIMIT,
    Returns,
    intensity_range,
    velocity_colors,
)
from imkd_edge.view.draw.canvas import Canvas, Color, Theme, class_color, ramp

ROW = 18
STAGE_COLORS: dict[str, Color] = {
    "preprocess": (120, 144, 255),
    "camera": (64, 196, 255),
    "lift": (80, 220, 200),
    "radar": (150, 220, 90),
    "warp": (240, 240, 120),
    "bev": (255, 200, 80),
    "decode": (255, 130, 110),
}


def _heading(canvas: Canvas, y: float, text: str, theme: Theme) -> float:
    canvas.text(14, y + 16, text, theme.text, 13, bold=True)
    return y + 26


def draw_detections(canvas: Canvas, y: float, rows: list[tuple], total: int, theme: Theme, limit: int) -> float:
    """Lists rows of (class, colour, score, distance m, speed m/s), strongest first; returns the next free y."""
    y = _heading(canvas, y, f"Detections: {total}", theme)
    untrained = any(np.isnan(row[4]) for row in rows)  # a velocity that is no output of the model has no column
    columns = [
        ("class", 30, "left"),
        ("score", canvas.width * 0.53, "right"),
        ("dist.", canvas.width * 0.75, "right"),
        ("m/s", canvas.width - 14, "right"),
    ][: 3 if untrained else 4]
    for name, x, anchor in columns:
        canvas.text(x, y + 10, name, theme.muted, 11, anchor=anchor)
    y += ROW - 1
    for label, color, score, distance, speed in rows[:limit]:
        canvas.box(14, y + 3, 9, 9, color)
        values = [label, f"{score:.2f}", f"{distance:.1f} m", f"{speed:.1f}"][: len(columns)]
        for (_, x, anchor), value in zip(columns, values, strict=True):
            canvas.text(x, y + 11.5, value, theme.text, 11.5, anchor=anchor)
        y += ROW
    if total > limit:
        canvas.text(30, y + 11, f"and {total - min(limit, len(rows))} more", theme.muted, 11)
        y += ROW
    return y + 8


def draw_legend(
    canvas: Canvas,
    y: float,
    classes: list[str],
    returns: Returns,
    theme: Theme,
    has_truth: bool = True,
    has_velocity: bool = True,
) -> float:
    """Explains the colours of classes, ground truth, velocity and radar returns; returns the next free y."""
    # 1. the classes, in lines
    y = _heading(canvas, y, "Legend", theme)
    x = 14.0
    for index, name in enumerate(classes):
        width = canvas.text_width(name, 11.5) + 30
        if x + width > canvas.width - 6:
            x, y = 14.0, y + ROW
        color = class_color(name, index)
        canvas.box(x, y + 2, 11, 11, color, 0.35)
        canvas.lines(np.array([[x, y + 2], [x + 11, y + 2], [x + 11, y + 13], [x, y + 13]]), color, 1.4, closed=True)
        canvas.text(x + 17, y + 11.5, name, theme.text, 11.5)
        x += width
    # 2. ground truth and velocity, in one line
    if has_truth or has_velocity:
        y += ROW
    if has_truth:
        canvas.dashes([np.array([[14.0, y + 8], [40.0, y + 8]])], theme.truth, 1.2, 3)
        canvas.text(47, y + 11.5, "ground truth", theme.text, 11.5)
    if has_velocity:
        line = np.array([[150.0, y + 8], [172.0, y + 8]]) - (0 if has_truth else np.array([136.0, 0]))
        canvas.lines(line, theme.muted, 1)
        canvas.fill(np.array([line[1] + [2, 0], line[1] + [-5, 3.5], line[1] + [-5, -3.5]]), theme.muted)
        canvas.text(line[1][0] + 8, y + 11.5, "velocity, 1 s", theme.text, 11.5)
    return _draw_color_bar(canvas, y + ROW + 2, returns, theme)


def _draw_color_bar(canvas: Canvas, y: float, returns: Returns, theme: Theme) -> float:
    width = canvas.width - 28
    steps = np.linspace(0, 1, int(width))
    if returns.is_velocity:
        colors = ramp(steps, [APPROACHING, theme.static, RECEDING])
        title, middle = "radar return: radial velocity", "approaching | receding"
        low, high = f"-{SPEED_LIMIT:.0f}", f"+{SPEED_LIMIT:.0f} m/s"
    else:
        colors = ramp(steps, INTENSITY)
        bottom, top = intensity_range(returns)
        title, low, middle, high = "radar return: intensity", f"{bottom:.0f}", "", f"{top:.0f} dB"
    canvas.text(14, y + 10, title, theme.muted, 11)
    canvas.color_bar(14, y + 16, width, 6, colors)
    canvas.text(14, y + 35, low, theme.muted, 10.5)
    canvas.text(14 + width / 2, y + 35, middle, theme.muted, 10.5, anchor="center")
    canvas.text(14 + width, y + 35, high, theme.muted, 10.5, anchor="right")
    return y + 44


def draw_timing(canvas: Canvas, y: float, timings_us: dict[str, float], total_us: float, theme: Theme) -> float:
    """Draws the stages' times as one stacked bar with a key; returns the next free y. 0 µs is a time not measured."""
    if not total_us:
        return y
    y = _heading(canvas, y, f"Time: {total_us / 1000:.1f} ms", theme)
    width, x = canvas.width - 28, 14.0
    canvas.box(14, y, width, 10, theme.line)
    for name, value in timings_us.items():
        share = width * value / max(total_us, 1e-9)
        canvas.box(x, y, share, 10, STAGE_COLORS.get(name, theme.muted))
        x += share
    y += 15
    column = width / 2 if canvas.width < 420 else width / 3
    for index, (name, value) in enumerate(timings_us.items()):
        left = 14 + (index % round(width / column)) * column
        top = y + (index // round(width / column)) * ROW
        canvas.box(left, top + 3, 9, 9, STAGE_COLORS.get(name, theme.muted))
        canvas.text(left + 15, top + 11.5, f"{name} {value / 1000:.2f} ms", theme.text, 11)
    return y + -(-len(timings_us) // round(width / column)) * ROW + 8


def draw_sensors(canvas: Canvas, y: float, mode: str, sensors: dict[str, str], theme: Theme) -> float:
    """Writes the mode and the names of the first three sensors that are not ok; returns the next free y."""
    y = _heading(canvas, y, "Sensors", theme)
    healthy = sum(state == "ok" for state in sensors.values())
    color = theme.good if mode == "full" else theme.bad
    canvas.disc(19, y + 8, 4.5, color)
    canvas.text(30, y + 12, f"mode {mode}: {healthy} of {len(sensors)} ok", theme.text, 11.5)
    y += ROW
    failing = [f"{name} {state}" for name, state in sensors.items() if state != "ok"]
    for text in failing[:3]:
        canvas.text(30, y + 12, text, theme.bad, 11.5)
        y += ROW
    if len(failing) > 3:
        canvas.text(30, y + 12, f"and {len(failing) - 3} more", theme.bad, 11.5)
        y += ROW
    return y + 8


__all__ = ["draw_detections", "draw_legend", "draw_sensors", "draw_timing", "velocity_colors"]
