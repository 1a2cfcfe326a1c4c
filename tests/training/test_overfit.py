"""A student overfits four frames: targets, network, losses and decoding agree from end to end."""

from dataclasses import replace

import numpy as np
import pytest

from helpers import without_limits, write_toy_config
from imkd_edge.evaluation import nuscenes
from imkd_edge.evaluation.run import choose, predict
from imkd_edge.options import TrainOptions
from imkd_edge.training.evaluate import CheckpointDetector
from imkd_edge.training.program import train

REACH = 25.6  # m: a small grid, so that its cells can be fine
CONFIG = """scenes = 1
frames_per_scene = 4
[augment]
flip = false
rotation = 0.0
scale = 0.0
image_scale = 0.0
colour = 0.0
drop_points = 0.0
drop_camera = 0.0
drop_radar = 0.0
"""
CHANGES = {
    "cell = 3.2": "cell = 0.8",
    "[spec.grid]": f"[spec.grid]\nx_min = -{REACH}\nx_max = {REACH}\ny_min = -{REACH}\ny_max = {REACH}",
    "bev_channels = 16": "bev_channels = 32",
    "epochs = 3": "epochs = 150\nrate = 5e-3\nweight_decay = 0.0\nema = 0.9",
    "scenes = 2\nframes_per_scene = 4\n": "",
}


def within_reach(truth):
    """The objects that the network is trained on: in the grid, and visible to a sensor."""
    mask = (np.abs(truth.boxes[:, :2]) < REACH).all(1) & nuscenes.counted(truth)
    arrays = ("boxes", "occlusion", "radar_points", "lidar_points")
    labels = [label for label, selected in zip(truth.labels, mask) if selected]
    return replace(truth, labels=labels, **{name: getattr(truth, name)[mask] for name in arrays})


@pytest.mark.slow
def test_a_student_overfits_four_frames(tmp_path):
    path = write_toy_config(tmp_path / "toy.toml", CONFIG)
    text = path.read_text()
    for old, new in CHANGES.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    checkpoint = train(path, TrainOptions(out=tmp_path / "run", seed=0))["checkpoint"]
    selection = choose("synth", "train", {"scenes": 1, "frames_per_scene": 4})
    detect = CheckpointDetector(checkpoint, 0.05)
    without_limits(detect.decode_spec)
    detected = predict(selection, detect).frames
    truths = [within_reach(item[0]) for item in detected]
    assert sum(label == "car" for truth in truths for label in truth.labels) > 20
    metrics = nuscenes.evaluate(truths, [item[1:] for item in detected], classes=["car", "truck"])
    assert metrics["car_AP"] >= 0.95
