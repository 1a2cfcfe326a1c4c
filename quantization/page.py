"""The report of a quantization as one HTML page without further files."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from imkd_edge.view.page import document, svg

WIDTH, HEIGHT, ROW = 420, 110, 18  # of a histogram; of a layer's bar
GRID = "display: grid; grid-template-columns: repeat(auto-fill, minmax(400px, 1fr)); gap: 8px 16px"
INTRODUCTION = (
    "<p>A histogram's height is the logarithm of the number of values |x| in the bin, zeros left out; the vertical "
    "line is the range. Where radar reaches a tensor, the lower outline counts only cells with returns.</p>"
)


def page(report: Mapping[str, Any], maps: Mapping[str, np.ndarray]) -> str:
    """The page's text.

    Args:
        report: of `report.gather`.
        maps: title -> weights (height, width) over the ground: rows along y, columns along x.
    """
    method = report["method"]
    title = f"{report['bundle']} in {method['bits']} bits by {method['name']}, {report['frames']} calibration frames"
    sections = [INTRODUCTION]
    for name, part in report["parts"].items():
        sections += _part(html.escape(name), part)
    if maps:
        sections.append("<h2>Weights over the ground, on the last observed frame</h2>")
        sections.append("<p>Ahead is to the right; brighter is heavier.</p>")
        sections += [f"<div>{html.escape(name)}</div>{picture(weights)}" for name, weights in maps.items()]
    return document(title, sections, report)


def _part(name: str, part: Mapping[str, Any]) -> list[str]:
    floats = [layer for layer in part["layers"] if layer["precision"] != "int8"]
    rows = [f"<div>{html.escape(layer['name'])}: {html.escape(layer['precision'])}</div>" for layer in floats]
    histograms = "".join(histogram(tensor) for tensor in part["tensors"])
    return [
        f"<h2>{name}: layers, by the NMSE of the worst output where each alone is INT8</h2>",
        sensitivity_bars(part["layers"]),
        "".join(rows),
        f"<h2>{name}: ranges</h2><div style='{GRID}'>{histograms}</div>",
    ]


def histogram(tensor: Mapping[str, Any]) -> str:
    """A tensor's values and its range, as SVG."""
    counts, end = tensor["counts"], max(tensor["largest"], tensor["range"]) or 1.0
    bottom, top = HEIGHT - 18, float(np.log1p(max(counts, default=0.0))) or 1.0
    step = WIDTH / len(counts)

    def outline(values: list[float]) -> str:
        return " ".join(
            f"{i * step:.1f},{bottom - (bottom - 16) * np.log1p(v) / top:.1f}" for i, v in enumerate(values)
        )

    area = f'<polygon class="bar" points="0,{bottom} {outline(counts)} {WIDTH},{bottom}"/>'
    occupied = ""
    if tensor["occupied"] is not None:
        occupied = f'<polyline fill="none" stroke="currentColor" points="{outline(tensor["occupied"])}"/>'
    x = WIDTH * tensor["range"] / end
    line = f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="14" y2="{bottom}"/>'
    title = f"{tensor['name']}: up to {tensor['largest']:.3g}, range {tensor['range']:.3g}"
    title += f", {100 * tensor['clipped']:.3g} % clipped"
    texts = (
        f'<text x="0" y="10">{html.escape(title)}</text><text x="0" y="{HEIGHT - 4}">0</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 4}" text-anchor="end">{end:.3g}</text>'
    )
    return svg(f"{area}{occupied}{line}{texts}", HEIGHT, WIDTH)


def sensitivity_bars(layers: list[dict[str, Any]]) -> str:
    """INT8 layers, the most sensitive first, as SVG; bars are linear."""
    rated = [layer for layer in layers if layer["sensitivity"] is not None]
    if not rated:
        return "<p>No layer is INT8.</p>"
    rated.sort(key=lambda layer: -layer["sensitivity"])
    scale = 480 / max(rated[0]["sensitivity"], 1e-12)

    def row(layer: Mapping[str, Any], y: int) -> str:
        value, length = layer["sensitivity"], scale * layer["sensitivity"]
        note = "" if layer["precision"] == "int8" else ", kept float"
        return (
            f'<text x="0" y="{y + 13}">{html.escape(layer["name"])}</text>'
            f'<rect class="bar" x="220" y="{y + 3}" width="{length:.1f}" height="{ROW - 5}"/>'
            f'<text x="{226 + length:.1f}" y="{y + 13}">{value:.2g}{note}</text>'
        )

    rows = "".join(row(layer, i * ROW) for i, layer in enumerate(rated))
    return svg(rows, ROW * len(rated))


def picture(weights: np.ndarray) -> str:
    """A map as an embedded image, flipped so that y grows upwards."""
    levels = np.clip(255 * weights[::-1] / max(float(weights.max()), 1e-9), 0, 255).astype(np.uint8)
    encoded, data = cv2.imencode(".png", levels)
    assert encoded
    code = base64.b64encode(data.tobytes()).decode()
    return f'<img alt="weights" style="width: 100%; image-rendering: pixelated" src="data:image/png;base64,{code}"/>'
