"""The report of a quantization as one HTML page without further files."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import numpy as np

from imkd_edge.quantization.maps import GroundMaps, section
from imkd_edge.view.page import document, svg

WIDTH, HEIGHT, ROW = 420, 124, 18  # of a histogram; of a layer's bar
GRID = "display: grid; grid-template-columns: repeat(auto-fill, minmax(400px, 1fr)); gap: 8px 16px"
INTRODUCTION = (
    "<p>Bars are shares of the non-zero values |x| in octaves, the outline is the share of the outputs' sensitivity; "
    "the line is the range of the float tensor. Where channels are equalised, the strip below shows the factors that "
    "they are divided by, in ascending order, and the range of the equalised tensor is in the title.</p>"
)
FIDELITY = (
    "<p>loss: error of the outputs per expected object; agree: overlap of the boxes with the float bundle's, weighted "
    "by score; fap: AP with the float bundle's boxes as truth. Rows are classes, distances, and whether the radar sees "
    "the place.</p>"
)


def page(report: Mapping[str, Any], maps: list[GroundMaps]) -> str:
    """The page's text; report: of `report.gather`."""
    method = report["method"]
    title = f"{report['bundle']} in {method['bits']} bits by {method['name']}, {report['frames']} calibration frames"
    sections = [_fidelity(report["fidelity"]), section(maps), INTRODUCTION]
    for name, part in report["parts"].items():
        sections += _part(html.escape(name), part)
    return document(title, sections, report)


def _fidelity(fidelity: Mapping[str, Any]) -> str:
    def cells(row: Mapping[str, Any]) -> str:
        values = ("" if row[key] is None else f"{row[key]:.3g}" for key in ("loss", "agree", "fap"))
        return "".join(f"<td>{value}</td>" for value in values)

    rows = {"all": fidelity, **fidelity["by"]}
    body = "".join(f"<tr><td>{html.escape(name)}</td>{cells(row)}</tr>" for name, row in rows.items())
    head = "<tr><th></th><th>loss</th><th>agree, %</th><th>fap, %</th></tr>"
    return f"<h2>Fidelity on {fidelity['frames']} frames not calibrated on</h2>{FIDELITY}<table>{head}{body}</table>"


def _part(name: str, part: Mapping[str, Any]) -> list[str]:
    floats = [layer for layer in part["layers"] if layer["precision"] != "int8"]
    rows = [f"<div>{html.escape(layer['name'])}: {html.escape(layer['precision'])}</div>" for layer in floats]
    histograms = "".join(histogram(tensor) for tensor in part["tensors"])
    return [
        f"<h2>{name}: layers, by their modelled share of the loss</h2>",
        error_bars(part["layers"]),
        "".join(rows),
        f"<h2>{name}: ranges</h2><div style='{GRID}'>{histograms}</div>",
    ]


def histogram(tensor: Mapping[str, Any]) -> str:
    """A tensor's values, its range and its factors, as SVG."""
    counts, weights, ends = tensor["counts"], tensor["sensitivity"], np.array(tensor["octaves"])
    bottom, step = HEIGHT - 32, WIDTH / len(counts)
    top = max(*counts, *weights, 1e-9)

    def height(share: float) -> float:
        return (bottom - 16) * np.sqrt(share / top)

    bars = "".join(
        f'<rect class="bar" x="{i * step:.1f}" y="{bottom - height(v):.1f}" width="{step - 1:.1f}" '
        f'height="{height(v):.1f}"/>'
        for i, v in enumerate(counts)
    )
    points = " ".join(f"{(i + 0.5) * step:.1f},{bottom - height(v):.1f}" for i, v in enumerate(weights))
    outline = f'<polyline fill="none" stroke="currentColor" points="{points}"/>' if any(weights) else ""
    x = WIDTH * (1 + np.log2(max(tensor["plain"], 1e-30) / max(ends[-1], 1e-30)) / len(counts))
    line = f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="14" y2="{bottom}"/>' if 0 <= x <= WIDTH else ""
    title = f"{tensor['name']}: up to {tensor['largest']:.3g}, range {tensor['plain']:.3g}"
    title += f", equalised {tensor['range']:.3g}" if tensor["factors"] else ""
    title += f", {100 * tensor['clipped']:.3g} % clipped"
    texts = (
        f'<text x="0" y="10">{html.escape(title)}</text><text x="0" y="{bottom + 12}">{ends[0] / 2:.2g}</text>'
        f'<text x="{WIDTH}" y="{bottom + 12}" text-anchor="end">{ends[-1]:.3g}</text>'
    )
    return svg(f"{bars}{outline}{line}{texts}{_factors(tensor['factors'])}", HEIGHT, WIDTH)


def _factors(factors: list[float] | None) -> str:
    """Factors in ascending order, on a logarithmic scale from their smallest to their largest."""
    if not factors:
        return ""
    low, high = min(factors), max(factors)
    spread = max(np.log2(high / low), 1e-9)
    y = [HEIGHT - 2 - 12 * np.log2(value / low) / spread for value in sorted(factors)]
    points = " ".join(f"{60 + i * (WIDTH - 120) / max(len(y) - 1, 1):.1f},{v:.1f}" for i, v in enumerate(y))
    ends = f'<text x="0" y="{HEIGHT - 2}">{low:.2g}</text>'
    ends += f'<text x="{WIDTH}" y="{HEIGHT - 2}" text-anchor="end">{high:.2g}</text>'
    return f'<polyline fill="none" stroke="currentColor" points="{points}"/>{ends}'


def error_bars(layers: list[dict[str, Any]]) -> str:
    """INT8 layers, those that cost most first, as SVG; bars are linear."""
    rated = [layer for layer in layers if layer["error"] is not None]
    if not rated:
        return "<p>No layer is INT8.</p>"
    rated.sort(key=lambda layer: -layer["error"])
    scale = 480 / max(rated[0]["error"], 1e-12)

    def row(layer: Mapping[str, Any], y: int) -> str:
        value, length = layer["error"], scale * layer["error"]
        note = "" if layer["precision"] == "int8" else ", kept float"
        return (
            f'<text x="0" y="{y + 13}">{html.escape(layer["name"])}</text>'
            f'<rect class="bar" x="220" y="{y + 3}" width="{length:.1f}" height="{ROW - 5}"/>'
            f'<text x="{226 + length:.1f}" y="{y + 13}">{value:.2g}{note}</text>'
        )

    rows = "".join(row(layer, i * ROW) for i, layer in enumerate(rated))
    return svg(rows, ROW * len(rated))
