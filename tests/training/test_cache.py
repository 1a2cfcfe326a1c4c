"""The cache decodes each sample once, equals the source to the bit, and never returns stale content."""

import dataclasses
import os

import numpy as np
import pytest
import torch

from helpers import write_toy_config
from imkd_edge.bundle import Bundle
from imkd_edge.checks.contract import measure
from imkd_edge.options import TrainOptions
from imkd_edge.sources import open_source
from imkd_edge.sources.base import Sample
from imkd_edge.sources.synth import SynthSource
from imkd_edge.training.cache import CachedSource, FeatureFiles
from imkd_edge.training.checkpoint import load_checkpoint
from imkd_edge.training.config import from_dict, load_config
from imkd_edge.training.data import FrameDataset
from imkd_edge.training.models.camera import SmallBackbone
from imkd_edge.training.program import train
from imkd_edge.training.sections import DataConfig

OPTIONS = {"scenes": 1, "frames_per_scene": 2, "lidar": True}


def plain(value):
    """A sample as nested lists and bytes, so that == means equal to the bit."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    return value.to_json() if hasattr(value, "to_json") else value


@pytest.fixture
def decoded(monkeypatch):
    """Names of the samples that the synthetic source makes."""
    names, make = [], SynthSource.__getitem__
    monkeypatch.setattr(SynthSource, "__getitem__", lambda self, name: names.append(name) or make(self, name))
    return names


def test_a_cached_sample_equals_the_sources_to_the_bit(tmp_path, decoded):
    source = open_source("synth", **OPTIONS)
    cached = CachedSource(source, DataConfig("synth", OPTIONS), tmp_path)
    first, second = (cached[source.names[1]] for _ in range(2))
    assert decoded == [source.names[1]]
    assert isinstance(second, Sample) and plain(first) == plain(second) == plain(source[source.names[1]])


def test_a_cached_real_sample_equals_the_sources_to_the_bit(tmp_path, shared_data):
    source = open_source(shared_data / "astyx")
    cached = CachedSource(source, DataConfig(str(shared_data / "astyx")), tmp_path)
    for _ in range(2):
        assert plain(cached[source.names[7]]) == plain(source[source.names[7]])


def test_a_contract_through_the_cache_equals_the_sources(tmp_path, shared_data):
    """With the unit of the intensity and the side of the traffic, which belong to the source, not to its samples."""
    bundle, source = Bundle.load("astyx-lite"), open_source(str(shared_data / "astyx"))
    cached = CachedSource(source, DataConfig(str(shared_data / "astyx")), tmp_path)
    labels = {"Car": "car"}
    contracts = [
        measure((one[name] for name in source.names[:2]), bundle.spec, labels, one, "") for one in (source, cached)
    ]
    assert contracts[0] == contracts[1]
    assert (contracts[1].traffic, contracts[1].radars.unit) == ("right", "magnitude_db")


def test_a_damaged_file_is_written_again(tmp_path, decoded):
    source = open_source("synth", **OPTIONS)
    cached = CachedSource(source, DataConfig("synth", OPTIONS), tmp_path)
    name = source.names[0]
    expected = plain(cached[name])
    (file,) = tmp_path.rglob("*.safetensors")
    os.truncate(file, file.stat().st_size // 2)
    assert plain(cached[name]) == expected and plain(cached[name]) == expected
    assert decoded == [name, name] and not list(tmp_path.rglob("*.tmp"))


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    path = write_toy_config(tmp_path_factory.mktemp("config") / "frozen.toml", "[augment]\nvariants = 2\n")
    path.write_text(path.read_text().replace("[model]\n", "[model]\nfrozen_backbone = true\n"))
    return path


def same(one, other):
    return all(torch.equal(value, other["trained"][key]) for key, value in one["trained"].items())


def test_a_cached_run_is_bit_equal_and_the_next_one_decodes_nothing(frozen, tmp_path, decoded, monkeypatch):
    runs, passes, forward = [], [], SmallBackbone.forward
    monkeypatch.setattr(SmallBackbone, "forward", lambda self, images: passes.append(1) or forward(self, images))
    for name, cache in {"memory": None, "first": tmp_path / "cache", "second": tmp_path / "cache"}.items():
        decoded.clear()
        passes.clear()
        train(frozen, TrainOptions(out=tmp_path / name, seed=2, epochs=2, cache=cache))
        runs.append((load_checkpoint(tmp_path / name / "checkpoint.pt"), len(decoded), len(passes)))
    (memory, *memory_work), (first, *first_work), (second, *second_work) = runs  # decoded samples, backbone passes
    assert memory_work == first_work == [8, 16] and second_work == [0, 0]
    assert same(memory, first) and same(memory, second)


def test_image_variants_depend_on_the_frame_and_their_order_on_the_seed(frozen):
    config, source = load_config(frozen), open_source("synth", **OPTIONS)
    whole = FrameDataset(source, source.names, config, 0)
    fold = FrameDataset(source, source.names[1:], config, 1)
    assert whole.image_change(1, 0) == fold.image_change(0, 0) != whole.image_change(1, 1) != whole.image_change(0, 0)
    datasets = whole, FrameDataset(source, source.names, config, 1)
    orders = [[dataset.variant(0) for dataset.epoch in range(12)] for dataset in datasets]
    assert orders[0] != orders[1] and all(sorted(order[:2]) == [0, 1] for order in orders)


@dataclasses.dataclass
class Folder:
    """The attributes of a source that a key depends on."""

    kind: str = "folder"
    names: tuple[str, ...] = ()


def test_a_stale_cache_is_not_used(tmp_path):
    data, cache = tmp_path / "data", tmp_path / "cache"
    (data / "radar").mkdir(parents=True)
    (data / "radar" / "0.txt").write_text("1 2 3")

    def key(options):
        return CachedSource(Folder(), DataConfig(str(data), options), cache).key

    first = key({})
    assert key({}) == first != key({"sweeps": 3})
    (data / "radar" / "0.txt").write_text("1 2 4")
    assert key({}) != first


def test_a_key_follows_links_and_survives_dangling_and_circular_ones(tmp_path):
    target, data = tmp_path / "target", tmp_path / "data"
    for folder in (target, data):
        folder.mkdir()
    (target / "0.txt").write_text("1 2 3")
    (data / "radar").symlink_to(target)
    (data / "dangling").symlink_to(tmp_path / "nowhere")
    (target / "circular").symlink_to(data)

    def key():
        return CachedSource(Folder(), DataConfig(str(data), {}), data / "cache").key

    first = key()
    assert key() == first  # although the cache lies in the folder
    (target / "0.txt").write_text("1 2 3 4")
    assert key() != first


def test_features_of_other_images_or_another_backbone_are_not_used(frozen, tmp_path):
    config, source = load_config(frozen), open_source("synth", **OPTIONS)
    cached, backbone = CachedSource(source, config.data, tmp_path), SmallBackbone()

    def key(section="augment", **change):
        tree = config.to_dict()
        part = tree["spec"]["image"] if section == "image" else tree[section]
        part.update(change)
        return FeatureFiles(cached, from_dict(tree, "test"), backbone).files.folder.name

    first = key()
    assert first == key(rotation=1.0, drop_camera=0.5) == key("train", rate=0.1)  # images do not depend on these
    others = [key(colour=0.1), key(variants=3), key(image_scale=0.01), key(flip=False), key(dark=0.1)]
    others.append(key("image", mean=[1.0, 2.0, 3.0]))
    with torch.no_grad():
        backbone.stage32[1].second[0].weight[0, 0, 0, 0] += 1
    assert len({first, *others, key()}) == 8
