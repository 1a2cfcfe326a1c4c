"""Where on the ground an INT8 form differs from the float one, as pictures beside what the radar sees there."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from imkd_edge.evaluation.fidelity import cell_errors
from imkd_edge.quantization.accept import HeldOut
from imkd_edge.quantization.ptq import QuantizedPart
from imkd_edge.quantization.radar_weight import radar_map
from imkd_edge.spec import ModelSpec

SIDE = 400  # px of a picture, at least
DECADES = 3  # of errors, from black to the brightest colour


@dataclass(frozen=True)
class GroundMaps:
    """Of one frame, or the mean of several; both (H, W) with x along columns and y along rows."""

    title: str
    error: np.ndarray  # what each cell adds to the loss
    radar: np.ndarray  # radar_map


def ground_maps(spec: ModelSpec, held_out: HeldOut, parts: Mapping[str, QuantizedPart]) -> list[GroundMaps]:
    """The mean over the held-out frames, and the frame with the largest error."""
    found = [
        GroundMaps(f"{name}, the largest error", cell_errors(spec, a, b).sum(0), radar_map(spec, grid))
        for name, a, b, grid in held_out.compared(parts)
    ]
    errors, radar = (np.mean([getattr(item, key) for item in found], 0) for key in ("error", "radar"))
    return [
        GroundMaps(f"mean of {len(found)} frames", errors, radar),
        max(found, key=lambda item: float(item.error.sum())),
    ]


def section(maps: list[GroundMaps]) -> str:
    """Pictures of each, as HTML."""
    rows = [
        f"<p>{html.escape(item.title)}</p><div style='display: flex; gap: 16px'>"
        f"{_image(_logarithmic(item.error), 'error')}{_image(item.radar, 'radar')}</div>"
        for item in maps
    ]
    text = (
        f"<p>Left what each cell adds to the loss, {DECADES} decades below the largest; right the radar's map, "
        "brightest near a frame's strongest return. x points up, y to the left.</p>"
    )
    return f"<h2>Errors over the ground</h2>{text}{''.join(rows)}"


def picture(values: np.ndarray) -> np.ndarray:
    """(height, width, 3) uint8 of values (H, W) in 0..1, x up and y to the left."""
    turned = np.clip(255 * values.T[::-1, ::-1], 0, 255).astype(np.uint8)
    scale = max(1, -(-SIDE // min(turned.shape)))
    large = cv2.resize(turned, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    return cv2.applyColorMap(large, cv2.COLORMAP_INFERNO)


def _logarithmic(error: np.ndarray) -> np.ndarray:
    top = max(float(error.max()), 1e-30)
    return 1 + np.log10(np.maximum(error / top, 10.0**-DECADES)) / DECADES


def _image(values: np.ndarray, name: str) -> str:
    text = base64.b64encode(cv2.imencode(".png", picture(values))[1].tobytes()).decode()
    return f'<img alt="{name}" style="width: 48%" src="data:image/png;base64,{text}"/>'
