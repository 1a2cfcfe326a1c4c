"""Training and Detector have the same history, to the bit; and the exported parts have the student's outputs."""

import dataclasses

import numpy as np
import pytest
import torch

from helpers import write_toy_clip_config
from imkd_edge import Detector, SensorRig
from imkd_edge.bundle import write_bundle
from imkd_edge.evaluation.run import evaluate_bundle
from imkd_edge.options import RunOptions
from imkd_edge.sources import open_source
from imkd_edge.training.config import load_config
from imkd_edge.training.data import FrameDataset, collate
from imkd_edge.training.export import to_onnx
from imkd_edge.training.models.student import Student
from imkd_edge.training.temporal import warp_history


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    config = load_config(write_toy_clip_config(folder / "clip.toml"))
    torch.manual_seed(0)
    student = Student(config.spec, config.model).eval()
    write_bundle(folder / "clip.imkd", config.spec, *to_onnx(student, config.spec), {}, {}, {})
    return folder / "clip.imkd", student, config


@pytest.fixture(scope="module")
def source():
    return open_source("synth", scenes=2, frames_per_scene=5)


def test_the_history_is_byte_equal_and_the_outputs_agree(clip, source):
    bundle, student, config = clip
    dataset = FrameDataset(source, source.names, config, 0, train=False)
    fused, past_frames = {}, []
    with Detector(bundle, source[source.names[0]].rig, threads=2, debug=True) as detector:
        for index, name in enumerate(source.names):
            result = detector.infer_sample(source[name])
            tensors = detector.tensors()
            fused[name] = torch.from_numpy(tensors["fused"][0])
            batch = collate([dataset[index]], config.spec)
            past = [item for item in dataset.timeline.past(name) if item is not None]
            maps: tuple = ()
            if past:
                maps = torch.stack([fused[item] for item in past]), batch["past_slot"], batch["past_motion"]
            history = warp_history(config.spec, 1, *maps).numpy()
            assert history.tobytes() == tensors["history"].tobytes()
            past_frames.append(result.health.past_frames)
            with torch.no_grad():
                out = student(batch)
            for key in ("heatmap", "box", "segmentation", "i_cam", "i_rad"):
                expected = out[key].numpy().reshape(tensors[key].shape)
                tolerance = 2e-3 * np.abs(expected).max()
                np.testing.assert_allclose(tensors[key], expected, atol=tolerance, err_msg=f"{name} {key}")
            probability = 1 / (1 + np.exp(-tensors["segmentation"][0, 0]))
            np.testing.assert_allclose(result.segmentation, probability, atol=1e-6)
    assert past_frames == [0, 1, 2, 3, 3] * 2  # a new scene has no past


def test_a_calibration_per_sample_keeps_the_past(clip, source):
    """nuScenes' camera poses differ in every sample, by the motion between exposure and reference time."""
    bundle, _, _ = clip
    with Detector(bundle, source[source.names[0]].rig, threads=2) as detector:
        for index in range(3):
            sample = source[source.names[index]]
            rig = SensorRig.from_json(sample.rig.to_json())
            T = np.array(rig.cameras[0].T_ego_camera)
            T[0, 3] += 0.01 * (index + 1)
            rig.cameras[0].T_ego_camera = T
            assert detector.infer_sample(dataclasses.replace(sample, rig=rig)).health.past_frames == index


def test_the_evaluation_of_a_bundle_that_segments_has_vehicle_iou(clip):
    pytest.importorskip("nuscenes")
    source = {"scenes": 8, "frames_per_scene": 2}
    result = evaluate_bundle(str(clip[0]), "synth", source_options=source, run=RunOptions(threads=2))
    assert 0 <= result["metrics"]["vehicle_iou"] <= 1
