"""The paper's configuration, from a folder in nuScenes' schema to boxes: one step of training, export, Detector."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from imkd_edge import Detector, ops
from imkd_edge.options import TrainOptions
from imkd_edge.sources import open_source
from imkd_edge.sources.nuscenes.writer import write_nuscenes
from imkd_edge.sources.synth import SynthSource
from imkd_edge.training.checkpoint import load_student
from imkd_edge.training.config import load_config
from imkd_edge.training.data import FrameDataset, collate
from imkd_edge.training.export import export
from imkd_edge.training.models.student import Student
from imkd_edge.training.program import train


class Street:
    """The synthetic world with the name of a scene of the official training split."""

    kind = "synth"

    def __init__(self, source: SynthSource):
        self.source, self.names, self.instances = source, source.names, source.instances

    def __getitem__(self, name: str):
        return dataclasses.replace(self.source[name], scene="scene-0061")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("nuscenes")
    street = Street(SynthSource(scenes=1, frames_per_scene=2, image=(400, 225), sweeps=6, lidar=True))
    return write_nuscenes(street, tmp_path_factory.mktemp("set") / "nuscenes", version="v1.0-trainval")


def test_the_reader_yields_the_papers_inputs(folder):
    config = load_config("r50-nuscenes")
    source = open_source(folder, **config.data.options)
    sample = source[source.splits["train"][-1]]
    assert len(source.splits["train"]) == 2 and len(sample.frames) == 6
    assert {len([s for s in sample.radar if s.radar == radar.name]) for radar in sample.rig.radars} == {6}
    assert max(sample.timestamp_ns - s.timestamp_ns for s in sample.radar) < config.spec.radar.max_age * 1e9
    crop = ops.image_crop(config.spec.image, 1600, 900)  # as published: by 0.44, less the top 140 rows
    assert (crop.scale, crop.left, crop.top) == pytest.approx((0.44, 0, 140))


# torchvision's published counts of the classifiers, and the inputs of their last layer, which has 1000 classes.
CLASSIFIERS = {"r18-nuscenes": (11_689_512, 512), "r50-nuscenes": (25_557_032, 2048)}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_backbone_is_the_published_one(name):
    config = load_config(name)
    student = Student(config.spec, config.model)
    classifier, last = CLASSIFIERS[name]
    assert parameters(student.camera.backbone) == classifier - 1000 * (last + 1)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.slow
def test_one_command_trains_and_the_bundle_detects(folder, tmp_path):
    path = tmp_path / "step.toml"
    path.write_text(
        'base = "r50-nuscenes"\n[teacher]\nepochs = 1\nlabel_epochs = 1\n[train]\nepochs = 1\nworkers = 1\n'
    )
    result = train(path, TrainOptions(data=str(folder), out=tmp_path / "run"))
    assert result["frames"] == 2 and all(np.isfinite(value) for value in result["losses"].values())
    card = export(tmp_path / "run" / "checkpoint.pt", tmp_path / "paper.imkd", data=str(folder))
    manifest = json.loads((tmp_path / "paper.imkd" / "manifest.json").read_text())
    parts = manifest["provenance"]["parts"]
    student, settings, _ = load_student(tmp_path / "run" / "checkpoint.pt")
    assert card["parameters"] > parameters(student.camera.backbone)
    assert sum(part["parameters"] for part in parts.values()) == pytest.approx(card["parameters"], rel=0.02)

    source = open_source(folder, **settings.data.options)
    dataset = FrameDataset(source, source.names, settings, 0, train=False)
    with Detector(tmp_path / "paper.imkd", source[source.names[0]].rig) as detector:
        for index, sample in enumerate(source):
            result = detector.infer_sample(sample)
            assert result.health.past_frames == index and result.health.mode == "full"
        tensors = detector.tensors()
    with torch.no_grad():
        out = student(collate([dataset[1]], settings.spec))
    for key in ("heatmap", "box"):
        np.testing.assert_allclose(tensors[key], out[key].numpy(), atol=2e-3 * out[key].abs().max().item())
