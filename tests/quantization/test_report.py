"""The report: its numbers against independent ones, and its page in a browser."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from html_page import Reader, open_in_browser

from imkd_edge.calibration.solvers import Method
from imkd_edge.quantization import page
from imkd_edge.quantization.ptq import quantize_part
from imkd_edge.quantization.report import write_report
from imkd_edge.quantization.state import Calibration


@pytest.fixture(scope="module")
def written(calibration: Calibration, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    method, path = Method("riac"), tmp_path_factory.mktemp("report") / "q.html"
    parts = {name: quantize_part(part, calibration.collection, method) for name, part in calibration.parts.items()}
    return path, write_report(calibration, parts, method, path, threads=1)


def test_every_pair_and_every_layer_is_in_it(calibration: Calibration, written: tuple[Path, dict[str, Any]]) -> None:
    for name, part in calibration.parts.items():
        quantized = quantize_part(part, calibration.collection, Method("riac"))
        tensors, layers = (written[1]["parts"][name][kind] for kind in ("tensors", "layers"))
        scales = quantized.scales.activations
        assert {t["name"]: t["range"] for t in tensors} == {tensor: scale * 127 for tensor, scale in scales.items()}
        assert [layer["name"] for layer in layers] == [node.name for node in part.layers()]
        for layer in layers:
            assert (layer["sensitivity"] is None) == layer["precision"].startswith("float") or layer["sensitivity"] >= 0


def test_histograms_hold_every_value_and_clipped_is_their_share_beyond_the_range(
    calibration: Calibration, written: tuple[Path, dict[str, Any]]
) -> None:
    for name, part in written[1]["parts"].items():
        for tensor in part["tensors"]:
            total = calibration.collection.histograms[f"{name}/{tensor['name']}"].counts[0].sum()
            counts, limit = tensor["counts"], tensor["range"]
            assert sum(counts) == pytest.approx(total) and len(counts) == 64
            edges = np.linspace(0, max(tensor["largest"], limit), 65)
            beyond = sum(count for count, low in zip(counts, edges, strict=False) if low > limit) / total
            within = sum(count for count, high in zip(counts, edges[1:], strict=True) if high < limit) / total
            assert beyond - 1e-9 <= tensor["clipped"] <= 1 - within + 1e-9
    assert any(tensor["occupied"] for tensor in written[1]["parts"]["bev"]["tensors"])
    assert not any(tensor["occupied"] for tensor in written[1]["parts"]["camera"]["tensors"])


def test_the_page_stands_alone_and_holds_the_data(written: tuple[Path, dict[str, Any]]) -> None:
    path, data = written
    text, tensors = path.read_text(), sum(len(part["tensors"]) for part in data["parts"].values())
    reader = Reader(text)
    assert not reader.fetched and "http" not in text and "@import" not in text
    assert reader.tags.count("svg") == tensors + 2 and reader.tags.count("polygon") == tensors
    int8 = sum(layer["sensitivity"] is not None for part in data["parts"].values() for layer in part["layers"])
    assert reader.tags.count("rect") == int8 and reader.tags.count("img") == len(data["maps"]) >= 2
    embedded = json.loads(re.search(r'<script type="application/json" id="result">(.*?)</script>', text)[1])  # type: ignore[index]
    assert embedded == data == json.loads(path.with_suffix(".json").read_text())


def test_the_line_stands_at_the_range_and_bars_are_as_long_as_their_numbers() -> None:
    tensor = {"name": "<x>", "largest": 8.0, "range": 2.0, "clipped": 0.5, "counts": [1.0] * 4, "occupied": None}
    drawing = page.histogram(tensor)
    assert f'x1="{page.WIDTH / 4:.1f}"' in drawing and "50 % clipped" in drawing and "<x>" not in drawing
    layers = [{"name": n, "sensitivity": s, "precision": "int8"} for n, s in (("a", 0.1), ("b", 0.4), ("c", None))]
    widths = re.findall(r'width="([\d.]+)" height', page.sensitivity_bars(layers))
    assert [float(w) for w in widths] == [480, 120]
    assert "No layer" in page.sensitivity_bars([layers[2]])


def test_the_map_is_drawn_with_the_left_side_up() -> None:
    """Rows grow with y, which is to the left: the last row is the picture's first."""
    weights = np.array([[0.0, 0.0, 0.5], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    code = re.search(r'base64,([^"]+)"', page.picture(weights))[1]  # type: ignore[index]
    levels = cv2.imdecode(np.frombuffer(base64.b64decode(code), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert levels.tolist() == [[255, 0, 0], [0, 0, 0], [0, 0, 127]]


def test_the_page_opens_in_a_browser_without_a_network(written: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    open_in_browser(written[0], tmp_path / "page.png", 5000)
    assert (tmp_path / "page.png").stat().st_size > 50_000
