"""compare: names the first tensor that parts, matches boxes, and fails by exit code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

from helpers import random_spec, write_random_bundle
from imkd_edge.bundle import Bundle, write_bundle
from imkd_edge.cli import app
from imkd_edge.errors import Error
from imkd_edge.quantization.compare import Boxes, Difference, compare


def changed(bundle: Path, out: Path, part: str, weight: str, factor: float) -> Path:
    """A copy in which one weight of one part is multiplied."""
    loaded = Bundle.load(bundle)
    files = {name: loaded.file(f"{name}.onnx").read_bytes() for name in ("camera", "bev")}
    model = onnx.load_from_string(files[part])
    for item in model.graph.initializer:
        if item.name == weight:
            item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item) * np.float32(factor), weight))
    files[part] = model.SerializeToString()
    with np.load(loaded.file("golden.npz")) as golden:
        write_bundle(out, loaded.spec, files["camera"], files["bev"], dict(golden), {}, {})
    return out


def test_a_bundle_is_equal_to_itself(random_bundle: Path) -> None:
    result = compare(random_bundle, random_bundle, "synth", options={"scenes": 1, "frames_per_scene": 3}, limit=2, tolerance=0)
    assert result["within"] and result["first_divergence"] is None and result["frames"] == 3
    assert all(row["max"] == 0 for row in result["tensors"]) and result["boxes"]["matched"] == result["boxes"]["a"]


def test_the_first_tensor_that_parts_is_named(random_bundle: Path, tmp_path: Path) -> None:
    other = changed(random_bundle, tmp_path / "b.imkd", "bev", "size_bias", 2)
    result = compare(random_bundle, other)
    assert not result["within"] and (result["first_divergence"]["part"], result["first_divergence"]["tensor"]) == ("bev", "box")
    inner = compare(random_bundle, changed(random_bundle, tmp_path / "c.imkd", "camera", "weight", 1.5))["first_divergence"]
    assert (inner["part"], inner["tensor"], inner["output"]) == ("camera", "features", False)
    assert inner["nmse"] == pytest.approx(0.25, abs=1e-4)  # everything is 1.5 times as large


def test_the_exit_code_is_the_verdict(random_bundle: Path, tmp_path: Path) -> None:
    other = changed(random_bundle, tmp_path / "b.imkd", "bev", "size_bias", 2)
    call = lambda *arguments: CliRunner().invoke(app, ["compare", str(random_bundle), *map(str, arguments)])  # noqa: E731
    assert call(random_bundle).exit_code == 0 and "within tolerance" in call(random_bundle).stdout
    assert call(other).exit_code == 1 and call(other, "--tolerance", 10).exit_code == 0


def test_bundles_of_two_models_are_refused(random_bundle: Path, tmp_path: Path) -> None:
    other = write_random_bundle(tmp_path / "other.imkd", random_spec(segmentation=True))
    with pytest.raises(Error) as error:
        compare(random_bundle, other)
    assert error.value.code == "E0409"


def test_a_nan_is_a_difference() -> None:
    item = Difference("bev", "box", True)
    item.add(np.ones(4, np.float32), np.array([1, 1, np.nan, 1], np.float32))
    assert item.nmse == np.inf and item.largest == np.inf


def test_boxes_match_once_and_within_their_class() -> None:
    class Found:
        def __init__(self, x: list[float], labels: list[int]) -> None:
            self.boxes = np.zeros((len(x), 9), np.float32)
            self.boxes[:, 0], self.labels, self.scores = x, np.array(labels), np.linspace(0.9, 0.5, len(x))

    boxes = Boxes()
    boxes.add(Found([0, 0.2, 10, 20], [0, 0, 0, 1]), Found([0.1, 10.5, 20], [0, 0, 0]))  # type: ignore[arg-type]
    assert boxes.row()["matched"] == 2 and boxes.row()["max_m"] == pytest.approx(0.5)
