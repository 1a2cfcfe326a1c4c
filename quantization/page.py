"""The report of a quantization as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from imkd_edge.bench.page import document, svg

WIDTH, HEIGHT, ROW = 420, 110, 18  # of a histogram; of a layer's bar
GRID = "display: grid; grid-template-columns: repeat(auto-fill, minmax(400px, 1fr)); gap: 8px 16px"


def page(report: Mapping[str, Any], maps: Mapping[str, np.ndarray]) -> str:
    """The page's text.

    Args:
        report: of `report.gather`.
        maps: title -> weights (height, width) over the ground: rows along y, columns along x.
    """
    method = report["method"]
    title = f"{report['bundle']} in {method['bits']} bits by {method['name']}, {report['frames']} calibration frames"
    parts = [
        "<p>A bar of a histogram is the logarithm of how many values |x| fall into it, zeros left out; the line is the chosen range."
    ]
    parts[0] += " Where radar reaches a tensor, the lower outline counts cells with returns alone.</p>"
    for name, part in report["parts"].items():
        kept = [layer for layer in part["layers"] if layer["precision"] != "int8"]
        parts.append(f"<h2>{html.escape(name)}: layers, by what their INT8 alone does to the worst output (NMSE)</h2>")
        parts.append(sensitivity_bars(part["layers"]))
        parts.append(
            "".join(f"<div>{html.escape(layer['name'])}: {html.escape(layer['precision'])}</div>" for layer in kept)
        )
        parts.append(
            f"<h2>{html.escape(name)}: ranges</h2><div style='{GRID}'>{''.join(histogram(t) for t in part['tensors'])}</div>"
        )
    if maps:
        parts.append(
            "<h2>Weights over the ground, on the frame that was observed last</h2><p>Ahead is to the right; the brighter, the heavier.</p>"
        )
        parts += [f"<div>{html.escape(name)}</div>{picture(weights)}" for name, weights in maps.items()]
    return document(title, parts, report)


def histogram(tensor: Mapping[str, Any]) -> str:
    """A tensor's values and its range."""
    counts, end = tensor["counts"], max(tensor["largest"], tensor["range"]) or 1.0
    bottom, top = HEIGHT - 18, float(np.log1p(max(counts, default=0.0))) or 1.0
    step = WIDTH / len(counts)

    def outline(values: list[float]) -> str:
        return " ".join(
            f"{i * step:.1f},{bottom - (bottom - 16) * np.log1p(v) / top:.1f}" for i, v in enumerate(values)
        )

    area = f'<polygon class="bar" points="0,{bottom} {outline(counts)} {WIDTH},{bottom}"/>'
    inner = (
        ""
        if tensor["occupied"] is None
        else f'<polyline fill="none" stroke="currentColor" points="{outline(tensor["occupied"])}"/>'
    )
    x = WIDTH * tensor["range"] / end
    line = f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="14" y2="{bottom}"/>'
    says = f"{tensor['name']}: up to {tensor['largest']:.3g}, range {tensor['range']:.3g}, {100 * tensor['clipped']:.3g} % clipped"
    words = f'<text x="0" y="10">{html.escape(says)}</text><text x="0" y="{HEIGHT - 4}">0</text>'
    return svg(
        f'{area}{inner}{line}{words}<text x="{WIDTH}" y="{HEIGHT - 4}" text-anchor="end">{end:.3g}</text>',
        HEIGHT,
        WIDTH,
    )


def sensitivity_bars(layers: list[dict[str, Any]]) -> str:
    """INT8 layers, the worst first; the bar is linear."""
    known = sorted(
        (layer for layer in layers if layer["sensitivity"] is not None), key=lambda layer: -layer["sensitivity"]
    )
    if not known:
        return "<p>No layer is INT8.</p>"
    scale = 480 / max(known[0]["sensitivity"], 1e-12)
    rows = "".join(
        f'<text x="0" y="{i * ROW + 13}">{html.escape(layer["name"])}</text>'
        f'<rect class="bar" x="220" y="{i * ROW + 3}" width="{scale * layer["sensitivity"]:.1f}" height="{ROW - 5}"/>'
        f'<text x="{226 + scale * layer["sensitivity"]:.1f}" y="{i * ROW + 13}">{layer["sensitivity"]:.2g}'
        f"{'' if layer['precision'] == 'int8' else ', kept float'}</text>"
        for i, layer in enumerate(known)
    )
    return svg(rows, ROW * len(known))


def picture(weights: np.ndarray) -> str:
    """A map as an image within the page, turned so that y grows upwards."""
    levels = np.clip(255 * weights[::-1] / max(float(weights.max()), 1e-9), 0, 255).astype(np.uint8)
    good, data = cv2.imencode(".png", levels)
    assert good
    code = base64.b64encode(data.tobytes()).decode()
    return f'<img alt="weights" style="width: 100%; image-rendering: pixelated" src="data:image/png;base64,{code}"/>'
