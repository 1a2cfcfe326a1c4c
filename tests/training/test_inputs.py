"""Training and Detector have equal input tensors, and an exported bundle has the student's outputs."""

import dataclasses

import numpy as np
import pytest
import torch

from imkd_edge import Detector
from imkd_edge.bundle import write_bundle
from imkd_edge.sources import open_source
from imkd_edge.sources.synth import SynthSource, default_rig
from imkd_edge.training.config import load_config
from imkd_edge.training.data import FrameDataset, collate
from imkd_edge.training.inputs import network_inputs
from imkd_edge.training.models.student import Student


def untrained_bundle(name: str, folder):
    from imkd_edge.training.export import to_onnx

    torch.manual_seed(0)
    config = load_config(name)
    student = Student(config.spec, dataclasses.replace(config.model, pretrained=False)).eval()
    write_bundle(folder, config.spec, *to_onnx(student, config.spec), {}, {}, {})
    return student, config.spec


def check_equal_inputs(bundle, spec, samples, rig):
    with Detector(bundle, rig=rig, threads=2) as detector:
        for sample in samples:
            detector.set_rig(sample.rig)
            detector.infer(sample.frames, sample.radar, ego=sample.ego, timestamp_ns=sample.timestamp_ns)
            device, training = detector.tensors(), network_inputs(spec, sample)
            for name in ("images", "radar_grid"):
                assert training[name].tobytes() == np.ascontiguousarray(device[name]).tobytes(), name
            assert (training["radar_grid"] != 0).sum() > 100


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "tiny.imkd"
    return folder, *untrained_bundle("tiny", folder)


def test_inputs_are_byte_equal_for_twenty_synthetic_frames(tiny):
    folder, _, spec = tiny
    source = open_source("synth")
    samples = [source[n] for n in source.names[:20]]
    check_equal_inputs(folder, spec, samples, samples[0].rig)


def test_inputs_are_byte_equal_for_twenty_real_frames(tmp_path, shared_data):
    _, spec = untrained_bundle("astyx-lite", tmp_path / "lite.imkd")
    source = open_source(shared_data / "astyx")
    samples = [source[n] for n in source.names[::23][:20]]
    assert len(samples) == 20
    check_equal_inputs(tmp_path / "lite.imkd", spec, samples, samples[0].rig)


@pytest.mark.parametrize("cameras", [1, 5])
def test_inputs_of_a_rig_with_fewer_cameras_are_byte_equal(tiny, cameras):
    folder, _, spec = tiny
    rig = default_rig()
    rig.cameras = list(rig.cameras)[:cameras]
    source = SynthSource(scenes=1, frames_per_scene=2, rig=rig)
    check_equal_inputs(folder, spec, [source[name] for name in source.names], rig)
    inputs = network_inputs(spec, source[source.names[0]])
    assert inputs["images"].shape == (6, 3, 128, 256) and inputs["present"].tolist() == [1] * cameras + [0] * (
        6 - cameras
    )


@pytest.mark.parametrize("absent", [None, "CAM_FRONT"])
def test_the_bundle_has_the_students_outputs(tiny, absent):
    folder, student, spec = tiny
    source = open_source("synth")
    sample = source[source.names[3]]
    frames = {k: v for k, v in sample.frames.items() if k != absent}
    sample = dataclasses.replace(sample, frames=frames)
    batch = collate([{k: torch.from_numpy(v) for k, v in network_inputs(spec, sample).items()}], spec)
    with torch.no_grad():
        expected = student(batch)
    with Detector(folder, rig=sample.rig) as detector:
        detector.infer(sample.frames, sample.radar, ego=sample.ego, timestamp_ns=sample.timestamp_ns)
        tensors = detector.tensors()
    for name in ("heatmap", "box"):
        reference = expected[name].numpy().reshape(tensors[name].shape)
        np.testing.assert_allclose(tensors[name], reference, atol=2e-3 * np.abs(reference).max())


@pytest.mark.parametrize(("sensors", "cameras", "radar"), [("both", 6, True), ("camera", 6, False), ("radar", 0, True)])
def test_a_student_of_one_sensor_reads_that_one_alone(sensors, cameras, radar):
    config = load_config("tiny")
    no_drop = dataclasses.replace(config.augment, drop_camera=0.0, drop_radar=0.0)
    config = dataclasses.replace(config, augment=no_drop, data=dataclasses.replace(config.data, sensors=sensors))
    source = open_source("synth", scenes=1, frames_per_scene=1)
    item = FrameDataset(source, source.names, config, seed=0)[0]
    assert item["present"].sum() == cameras and bool((item["radar_grid"] != 0).any()) == radar
    assert bool((item["images"] != 0).any()) == (cameras > 0)
