"""Vehicle segmentation: footprints against shapely, the ratio against hand-counted cells."""

import numpy as np
import pytest
import shapely

from helpers import bev_onnx, camera_onnx, random_spec
from imkd_edge.bundle import write_bundle
from imkd_edge.evaluation.run import evaluate_bundle
from imkd_edge.evaluation.segmentation import GRID, centres, footprints, on_grid, tally, vehicle_iou, vehicle_map
from imkd_edge.options import EvalOptions
from imkd_edge.sources.base import Truth
from imkd_edge.sources.nuscenes import DETECTION_CLASSES
from imkd_edge.sources.synth import SynthSource
from imkd_edge.spec import GridSpec


def truth_of(*boxes, labels=None, occlusion=None) -> Truth:
    """Boxes given as x, y, length, width, yaw."""
    count = len(boxes)
    full = np.array([[x, y, 0, length, width, 1.5, yaw, 0, 0] for x, y, length, width, yaw in boxes], float).reshape(
        -1, 9
    )
    unknown = np.full(count, -1, np.int32)
    return Truth(full, labels or ["car"] * count, np.array(occlusion or [0] * count, np.int8), unknown, unknown)


def filled(*boxes) -> np.ndarray:
    """Logits that are 1 in cells whose centre shapely finds in one of the rectangles, else -1."""
    x, y = np.meshgrid(np.arange(-49.75, 50, 0.5), np.arange(-49.75, 50, 0.5))
    inside = np.zeros(x.shape, bool)
    for cx, cy, length, width, yaw in boxes:
        corners = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) * [length / 2, width / 2]
        turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        inside |= shapely.contains_xy(shapely.Polygon(corners @ turn.T + [cx, cy]), x, y)
    return np.where(inside, 1.0, -1.0)


def test_the_protocol_has_two_hundred_cells_of_half_a_metre():
    x, y = centres(GRID)
    assert (len(x), len(y)) == (200, 200) and (x[0], x[-1], y[0], y[-1]) == (-49.75, 49.75, -49.75, 49.75)


def test_vehicles_are_the_superclass_of_nuscenes():
    from imkd_edge.evaluation.segmentation import VEHICLES

    assert set(VEHICLES) == {name for category, name in DETECTION_CLASSES.items() if category.startswith("vehicle.")}


def test_footprints_are_those_of_shapely():
    rng = np.random.default_rng(0)
    boxes = [tuple(rng.uniform([-55, -55, 0.5, 0.5, -4], [55, 55, 15, 4, 4])) for _ in range(40)]
    expected = filled(*boxes) > 0
    assert expected.sum() > 1000
    np.testing.assert_array_equal(footprints(truth_of(*boxes).boxes, GRID), expected)


def test_a_car_of_four_by_two_metres_is_thirty_two_cells():
    grid = np.argwhere(footprints(truth_of((10, -20, 4, 2, 0)).boxes, GRID))
    assert len(grid) == 32
    assert grid.min(0).tolist() == [58, 116] and grid.max(0).tolist() == [61, 123]  # y from -21, x from 8


@pytest.mark.parametrize(
    "predicted, expected",
    [
        ([(10, 0, 4, 2, 0)], 1.0),
        ([(12, 0, 4, 2, 0)], 16 / 48),  # half of it, and as much beyond
        ([(12, 0, 4, 2, 0), (0, 20, 4, 2, 0)], 16 / 80),
        ([(-30, 0, 4, 2, 0)], 0.0),
        ([], 0.0),
    ],
)
def test_hand_counted_ratios(predicted, expected):
    assert vehicle_iou([tally(truth_of((10, 0, 4, 2, 0)), filled(*predicted))]) == pytest.approx(expected)


def test_samples_are_joined_before_the_ratio_is_taken():
    small = tally(truth_of((0, 0, 1, 1, 0)), filled((0, 0, 1, 1, 0)))  # 4 of 4
    large = tally(truth_of((0, 0, 10, 10, 0)), filled())  # 0 of 400
    assert vehicle_iou([small, large]) == pytest.approx(4 / 404)


def test_nothing_wanted_and_nothing_found_is_no_number():
    assert np.isnan(vehicle_iou([tally(truth_of(), filled())])) and np.isnan(vehicle_iou([]))


def test_hidden_vehicles_neither_count_nor_cost_and_visible_ones_win():
    hidden, visible = (10, 0, 4, 2, 0), (12, 0, 4, 2, 0)
    truth = truth_of(hidden, visible, occlusion=[3, 2])
    assert tally(truth, filled(visible)).tolist() == [32, 32]
    assert tally(truth, filled(hidden, visible)).tolist() == [32, 32]
    assert tally(truth, filled(hidden)).tolist() == [16, 32]  # the half under the visible one
    assert tally(truth_of(hidden, occlusion=[-1]), filled()).tolist() == [0, 32]  # unknown: it counts


def test_only_vehicles_count():
    truth = truth_of((10, 0, 4, 2, 0), (0, 10, 1, 1, 0), (0, 20, 2, 1, 0), labels=["bus", "pedestrian", "barrier"])
    assert tally(truth, filled()).tolist() == [0, 32]


def test_the_map_has_one_zero_and_nan():
    values = vehicle_map(truth_of((10, 0, 4, 2, 0), (-10, 0, 4, 2, 0), occlusion=[0, 3]), GRID)
    assert (values == 1).sum() == 32 and np.isnan(values).sum() == 32 and (values == 0).sum() == 40000 - 64


def test_the_threshold_is_a_probability_of_one_half():
    truth = truth_of((10, 0, 4, 2, 0))
    assert tally(truth, np.where(filled((10, 0, 4, 2, 0)) > 0, 0.0, -1e-6)).tolist() == [32, 32]


def test_a_plane_of_logits_is_read_exactly_at_other_cells():
    grid = GridSpec(x_min=-51.2, x_max=51.2, y_min=-51.2, y_max=51.2, cell=0.8)
    x, y = centres(grid)
    plane = 0.3 * x[None] - 0.7 * y[:, None] + 2
    centre_x, centre_y = centres(GRID)
    np.testing.assert_allclose(on_grid(plane, grid), 0.3 * centre_x[None] - 0.7 * centre_y[:, None] + 2, atol=1e-9)


def test_the_resampling_is_that_of_torch():
    torch = pytest.importorskip("torch")
    grid = GridSpec(x_min=-51.2, x_max=51.2, y_min=-51.2, y_max=51.2, cell=1.6)
    logits = np.random.default_rng(1).normal(size=(64, 64))
    x, y = np.meshgrid(np.arange(-49.75, 50, 0.5) / 51.2, np.arange(-49.75, 50, 0.5) / 51.2)
    where = torch.from_numpy(np.stack([x, y], -1))[None]
    expected = torch.nn.functional.grid_sample(
        torch.from_numpy(logits)[None, None], where, mode="bilinear", padding_mode="border", align_corners=False
    )
    np.testing.assert_allclose(on_grid(logits, grid), expected[0, 0].numpy(), atol=1e-9)


def test_beyond_the_networks_grid_there_is_background():
    grid = GridSpec(x_min=0.0, x_max=20.0, y_min=-10.0, y_max=10.0, cell=1.0)
    values = on_grid(np.full((20, 20), 5.0), grid)
    assert np.isfinite(values).sum() == 40 * 40 and (values[80:120, 100:140] == 5).all()
    assert tally(truth_of((-10, 0, 4, 2, 0)), values).tolist() == [0, 1632]


def test_a_bundle_that_sees_vehicles_everywhere_scores_their_share_of_the_map(tmp_path):
    """The metric takes the Detector's probabilities: the ratio is that of the vehicles' cells to all that count."""
    import onnx
    from onnx import numpy_helper

    pytest.importorskip("nuscenes")
    spec = random_spec(segmentation=True)
    bev = onnx.load_from_string(bev_onnx(spec))
    [conv] = [node for node in bev.graph.node if node.output[0] == "segmentation"]
    [weight] = [w for w in bev.graph.initializer if w.name == conv.input[1]]
    weight.CopyFrom(numpy_helper.from_array(np.zeros(tuple(weight.dims), np.float32), weight.name))
    bev.graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float32), "everywhere"))
    conv.input.append("everywhere")
    write_bundle(tmp_path / "b.imkd", spec, camera_onnx(spec), bev.SerializeToString(), {}, {}, {})
    options = {"scenes": 1, "frames_per_scene": 2}
    metrics = evaluate_bundle(str(tmp_path / "b.imkd"), "synth", EvalOptions(split="train"), source_options=options)[
        "metrics"
    ]
    real = counted = 0
    for sample in SynthSource(**options):
        boxes = [(*box[:2], *box[3:5], box[6], label, hidden) for box, label, hidden in
                 zip(sample.truth.boxes, sample.truth.labels, sample.truth.occlusion)]  # fmt: skip
        visible = [box[:5] for box in boxes if box[5] in ("car", "truck", "bicycle") and box[6] < 3]
        lost = [box[:5] for box in boxes if box[5] in ("car", "truck", "bicycle") and box[6] == 3]
        vehicle = filled(*visible) > 0
        real += vehicle.sum()
        counted += (vehicle | (filled(*lost) < 0)).sum()
    assert real > 100 and metrics["vehicle_iou"] == pytest.approx(real / counted, rel=0.01)
