"""Radar-intensity-aware calibration: the map, what it weighs, and that without a share it is fisher bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from helpers import random_spec
from imkd_edge.bundle import Bundle
from imkd_edge.calibration.histogram import FISHER, PLAIN
from imkd_edge.calibration.solvers import Method
from imkd_edge.errors import Error
from imkd_edge.options import QuantizeOptions
from imkd_edge.quantization import qat, riac, study
from imkd_edge.quantization.calibrate import radar_collection
from imkd_edge.quantization.ptq import solve_part
from imkd_edge.quantization.quantize import quantize
from imkd_edge.quantization.radar_weight import ELSEWHERE, RadarWeight, blend, normalised, radar_map
from imkd_edge.quantization.state import Calibration, Training

SPEC = random_spec(cameras=2)
H, W = SPEC.grid.height(), SPEC.grid.width()
RATIO = SPEC.radar_height() // H
FEATURES = [feature.statistic for feature in SPEC.radar.features]


def grid_with(returns: dict[tuple[int, int], float]) -> np.ndarray:
    """A radar grid with returns of these intensities in the cells (row, column) of the output."""
    grid = np.zeros((1, len(FEATURES), SPEC.radar_height(), SPEC.radar_width()), np.float32)
    for (row, column), intensity in returns.items():
        grid[0, :, row * RATIO, column * RATIO] = 1
        grid[0, FEATURES.index("intensity_max"), row * RATIO, column * RATIO] = intensity
    return grid


def test_the_map_ranks_returns_by_intensity_and_reaches_two_cells() -> None:
    found = radar_map(SPEC, grid_with({(5, 5): -3.0, (5, 20): 4.0, (20, 5): 0.5}))
    assert found.shape == (H, W) and found[5, 5] == 0.5 and found[20, 5] == 0.75 and found[5, 20] == 1.0
    assert found[7, 7] == 0.5 and found[3, 3] == 0.5 and found[8, 5] == pytest.approx(ELSEWHERE)
    assert (found == np.float32(ELSEWHERE)).sum() == H * W - 3 * 25


def test_the_stronger_of_two_returns_counts_and_no_return_gives_an_even_map() -> None:
    near = radar_map(SPEC, grid_with({(5, 5): 1.0, (5, 7): 2.0}))
    assert near[5, 6] == 1.0 and near[5, 3] == 0.5
    assert (radar_map(SPEC, grid_with({})) == np.float32(ELSEWHERE)).all()


def test_the_expected_objects_weigh_one_on_average() -> None:
    random = np.random.default_rng(0)
    weight, highest = random.random((H, W)), random.random((H, W)) ** 4
    scaled = normalised(weight, highest)
    assert (scaled * highest).sum() == pytest.approx(highest.sum())
    assert np.allclose(scaled / weight, (scaled / weight)[0, 0])


def test_placebos_take_the_mirror_image_and_the_frame_before() -> None:
    one, two = ({"radar_grid": grid_with({cell: 1.0})} for cell in ((2, 3), (9, 9)))
    even = np.ones((H, W))
    own, mirrored, another = (RadarWeight(SPEC, kind) for kind in ("own", "mirrored", "another"))
    first = own(one, even)
    assert np.array_equal(mirrored(one, even), first[::-1]) and np.array_equal(another(one, even), first[::-1])
    assert np.array_equal(another(two, even), first) and not np.array_equal(own(two, even), first)


def test_a_share_of_the_map_is_added_to_a_weight_of_one() -> None:
    tensors, highest = {"radar_grid": grid_with({(2, 3): 1.0})}, np.ones((H, W))
    whole, quarter, none = (RadarWeight(SPEC, "own", share)(tensors, highest) for share in (1.0, 0.25, 0.0))
    assert np.allclose(quarter, 0.75 + 0.25 * whole) and (none == 1).all() and whole.std() > 0.1


@pytest.fixture(scope="module")
def few(calibration: Calibration) -> Calibration:
    return replace(calibration, frames=replace(calibration.frames, held_out=calibration.frames.held_out[:2]))


@pytest.fixture(scope="module")
def radar(calibration: Calibration, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return radar_collection(calibration, "own", tmp_path_factory.mktemp("radar") / "c.npz", 1)


def test_the_second_pass_counts_the_same_values_with_other_weights(calibration: Calibration, radar: Any) -> None:
    plain = calibration.collection
    assert radar.key != plain.key and radar.frames == plain.frames and radar.objects == pytest.approx(plain.objects)
    for key, histogram in plain.histograms.items():
        assert np.array_equal(histogram.counts[PLAIN], radar.histograms[key].counts[PLAIN])
    total = [sum(c.histograms[k].counts[FISHER].sum() for k in plain.histograms) for c in (plain, radar)]
    assert total[0] != total[1] and 0.2 < total[1] / total[0] < 5


@pytest.mark.parametrize("name", ["camera", "bev"])
def test_without_a_share_it_is_fisher_bit_for_bit(calibration: Calibration, radar: Any, name: str) -> None:
    blended = blend(calibration.collection, radar, 0.0)
    fisher = solve_part(calibration.parts[name], calibration.collection, Method("fisher"))
    none = solve_part(calibration.parts[name], blended, Method("riac", share=0.0))
    assert none.quantized().model.SerializeToString() == fisher.quantized().model.SerializeToString()
    half = solve_part(calibration.parts[name], blend(calibration.collection, radar, 0.5), Method("riac", share=0.5))
    assert half.amax != fisher.amax


def test_a_blend_is_linear_in_the_share(calibration: Calibration, radar: Any) -> None:
    plain = calibration.collection
    key = next(iter(plain.histograms))
    ends = [c.histograms[key].counts[FISHER] for c in (plain, radar)]
    middle = blend(plain, radar, 0.25)
    assert np.allclose(middle.histograms[key].counts[FISHER], 0.75 * ends[0] + 0.25 * ends[1])
    layer = next(iter(plain.layers))
    assert np.allclose(middle.layers[layer], 0.75 * plain.layers[layer] + 0.25 * radar.layers[layer])
    assert np.array_equal(plain.histograms[key].counts[FISHER], ends[0])  # not changed in place


@pytest.mark.parametrize(("losses", "share"), [
    ({0.0: 1.0, 1.0: 1.04}, 1.0),
    ({0.0: 1.0, 1.0: 1.06, 0.75: 1.06, 0.5: 1.05}, 0.5),
    ({0.0: 1.0, 1.0: 2.0, 0.75: 2.0, 0.5: 2.0, 0.25: 2.0}, 0.0),
])  # fmt: skip
def test_the_share_is_the_largest_that_keeps_the_loss(
    few: Calibration, radar: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, losses: dict, share: float
) -> None:
    seen = []
    judge = SimpleNamespace(fidelity=lambda parts: {"loss": losses[parts["bev"]]})
    monkeypatch.setattr(riac, "HeldOut", lambda calibration, *_: seen.append(calibration) or judge)
    monkeypatch.setattr(riac, "radar_collection", lambda *_: radar)

    def solve(_: Calibration, method: Method) -> dict:
        return {"bev": SimpleNamespace(quantized=lambda: method.share)}

    weighted, method = riac.weigh_by_radar(few, Method("riac"), tmp_path / "s.npz", solve)  # type: ignore[arg-type]
    assert method.share == share
    assert seen[0].frames.held_out == few.frames.held_out[:1]  # the gate measures on others
    assert weighted.frames.held_out == few.frames.held_out[1:]
    expected = blend(few.collection, radar, share)
    key = next(iter(expected.histograms))
    assert np.array_equal(weighted.collection.histograms[key].counts, expected.histograms[key].counts)


def test_training_weighs_errors_by_the_map() -> None:
    targets = {"heatmap": torch.zeros(1, 2, H, W), "box": torch.zeros(1, 10 * SPEC.head.groups(), H, W)}
    inputs = {"radar_grid": torch.from_numpy(grid_with({(5, 5): 1.0}))}
    assert qat.output_weight(SPEC, inputs, targets, 0.0) is None
    weight = qat.output_weight(SPEC, inputs, targets, 0.5)
    assert weight is not None and weight.mean().item() == pytest.approx(1, rel=1e-5)

    def terms(row: int, cells: torch.Tensor | None) -> dict[str, float]:
        outputs = {name: value.clone() for name, value in targets.items()}
        outputs["heatmap"][0, 0, row, 5] = outputs["box"][0, 0, row, 5] = 1.0
        return {name: value.item() for name, value in qat.distillation(outputs, targets, cells).items()}

    seen, unseen, even = terms(5, weight), terms(30 % H, weight), terms(5, None)
    for name in targets:
        assert seen[name] == pytest.approx(even[name] * weight[0, 0, 5, 5].item(), rel=2e-3)  # float32 sums
        assert unseen[name] < even[name] < seen[name]


def test_the_study_has_a_row_for_each_map(
    calibration: Calibration, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = []
    monkeypatch.setattr(study, "calibrate", lambda *_: calibration)
    monkeypatch.setattr(study, "radar_collection", lambda *_: calibration.collection)
    monkeypatch.setattr(study.Study, "row", lambda _, title, make, **settings: rows.append((title, settings)))
    study.main(["tiny", "--data", "synth", "--out", str(tmp_path / "r.json"), "--bits", "8", "--radar-share", "0.5"])
    assert [title for title, _ in rows] == [
        "fisher, 8 bits",
        "riac 0.5, 8 bits",
        "riac 0.5, 8 bits, mirrored map",
        "riac 0.5, 8 bits, another map",
    ]
    assert [settings.get("map") for _, settings in rows] == [None, "own", "mirrored", "another"]


def test_a_share_belongs_to_riac() -> None:
    for wrong in ({"name": "fisher", "share": 0.5}, {"name": "riac", "share": 1.5}):
        with pytest.raises(Error, match="radar share"):
            Method(**wrong)  # type: ignore[arg-type]
    assert Training(radar=0.5).radar == 0.5


def test_quantize_keeps_the_share_in_the_bundle(collection: Path, synth: dict[str, Any], tmp_path: Path) -> None:
    options = QuantizeOptions(method="riac", radar_share=0.5, frames=16, gate=1e6, collection=collection)
    result = quantize("tiny", "synth", tmp_path / "riac.imkd", options, source_options=synth, threads=1)
    method = Bundle.load(tmp_path / "riac.imkd").manifest["provenance"]["quantization"]["method"]
    assert (method["name"], method["share"]) == ("riac", 0.5)
    assert set(result["fidelity"]["by"]) >= {"seen", "unseen"}
    assert collection.with_suffix(".radar.npz").is_file()
