"""The report: its numbers against independent ones, and its page in a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from html_page import Reader, open_in_browser

from imkd_edge.calibration.solvers import Method
from imkd_edge.quantization import page
from imkd_edge.quantization.accept import Accepted
from imkd_edge.quantization.insert import quantized_tensors
from imkd_edge.quantization.ptq import solve_part
from imkd_edge.quantization.report import write_report
from imkd_edge.quantization.state import Calibration

Written = tuple[Path, dict[str, Any], Accepted]


@pytest.fixture(scope="module")
def written(calibration: Calibration, tmp_path_factory: pytest.TempPathFactory) -> Written:
    path = tmp_path_factory.mktemp("report") / "q.html"
    solved = {name: solve_part(part, calibration.collection, Method()) for name, part in calibration.parts.items()}
    accepted = Accepted(solved, {"frames": 3, "loss": 0.1, "agree": 90.0, "fap": None, "by": {}}, [])
    parts = {name: part.quantized() for name, part in solved.items()}
    return path, write_report(calibration, accepted, parts, path), accepted


def test_every_pair_and_every_layer_is_in_it(calibration: Calibration, written: Written) -> None:
    for name, part in calibration.parts.items():
        tensors, layers = (written[1]["parts"][name][kind] for kind in ("tensors", "layers"))
        assert {t["name"] for t in tensors} == set(quantized_tensors(part, part.groups()))
        assert [layer["name"] for layer in layers] == [node.name for node in part.layers()]
        for layer in layers:
            assert (layer["error"] is None) == layer["precision"].startswith("float") or layer["error"] >= 0


def test_shares_are_of_all_values_and_clipped_ones_are_above_the_range(
    calibration: Calibration, written: Written
) -> None:
    for name, part in written[1]["parts"].items():
        for tensor in part["tensors"]:
            histogram = calibration.collection.histograms[f"{name}/{tensor['name']}"]
            assert sum(tensor["counts"]) == pytest.approx(1) and len(tensor["counts"]) == len(tensor["octaves"])
            assert 0 <= tensor["clipped"] < 0.2 and tensor["octaves"][-1] == histogram.top >= tensor["largest"]
            if not tensor["factors"]:
                expected = written[2].parts[name].amax[tensor["name"]]
                assert tensor["range"] == expected
                beyond = sum(
                    v for v, end in zip(tensor["counts"], tensor["octaves"], strict=True) if end / 2 > expected
                )
                assert beyond - 1e-9 <= tensor["clipped"]


def test_the_page_stands_alone_and_holds_the_data(written: Written) -> None:
    path, data, _ = written
    text, tensors = path.read_text(), sum(len(part["tensors"]) for part in data["parts"].values())
    reader = Reader(text)
    assert not reader.fetched and "http" not in text and "@import" not in text
    assert reader.tags.count("svg") == tensors + 2 and reader.tags.count("polyline") >= tensors
    embedded = json.loads(re.search(r'<script type="application/json" id="result">(.*?)</script>', text)[1])  # type: ignore[index]
    assert embedded == data == json.loads(path.with_suffix(".json").read_text())


def test_the_line_stands_at_the_range_and_bars_are_as_long_as_their_numbers() -> None:
    tensor = {
        "name": "<x>",
        "largest": 8.0,
        "range": 2.0,
        "plain": 2.0,
        "clipped": 0.5,
        "factors": [0.5, 2.0],
        "octaves": [1.0, 2.0, 4.0, 8.0],
        "counts": [0.25] * 4,
        "sensitivity": [0.0] * 4,
    }
    drawing = page.histogram(tensor)
    assert f'x1="{page.WIDTH / 2:.1f}"' in drawing and "50 % clipped" in drawing and "<x>" not in drawing
    layers = [{"name": n, "error": s, "precision": "int8"} for n, s in (("a", 0.1), ("b", 0.4), ("c", None))]
    widths = re.findall(r'width="([\d.]+)" height', page.error_bars(layers))
    assert [float(w) for w in widths] == [480, 120]
    assert "No layer" in page.error_bars([layers[2]])


def test_the_page_opens_in_a_browser_without_a_network(written: Written, tmp_path: Path) -> None:
    open_in_browser(written[0], tmp_path / "page.png", 5000)
    assert (tmp_path / "page.png").stat().st_size > 50_000
