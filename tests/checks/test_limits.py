"""Limits of size: from the labels of the training, through the contract, into the spec of a bundle."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import random_spec, write_random_bundle
from imkd_edge import Bundle, Error
from imkd_edge.bundle import replace_contract
from imkd_edge.bundle.contract import Contract
from imkd_edge.checks.contract import measure
from imkd_edge.checks.limits import SIZE_MARGIN, update_decode, with_limits
from imkd_edge.checks.selftest import beyond_tolerance, check_golden
from imkd_edge.sources.base import Sample
from imkd_edge.sources.synth import SynthSource
from imkd_edge.spec import ModelSpec

CLASSES = {"car": "car", "pedestrian": "pedestrian"}


@pytest.fixture(scope="module")
def source() -> SynthSource:
    return SynthSource(scenes=1, frames_per_scene=3, image=(64, 36))


@pytest.fixture(scope="module")
def samples(source) -> list[Sample]:
    return [source[name] for name in source.names]


def contract_of(samples: list[Sample], source: SynthSource, spec: ModelSpec | None = None) -> Contract:
    return measure(samples, spec or random_spec(), CLASSES, source, "train")


def sizes_of(samples: list[Sample], label: str) -> np.ndarray:
    boxes = [sample.truth.boxes[np.array(sample.truth.labels) == label] for sample in samples]
    return np.concatenate(boxes)[:, 3:6]


@pytest.mark.parametrize("label", ["car", "pedestrian"])
def test_a_contract_has_the_smallest_and_largest_sides_of_the_labels(label: str, samples, source) -> None:
    item = next(entry for entry in contract_of(samples, source).classes if entry.name == label)
    sizes = sizes_of(samples, label)
    assert len(sizes) == item.objects > 0
    assert item.smallest == pytest.approx(sizes.min(0), abs=0.0051)  # bins of 1 cm
    assert item.largest == pytest.approx(sizes.max(0), abs=0.0051)


def test_limits_are_the_labels_sides_and_the_margin(samples, source) -> None:
    spec = with_limits(random_spec(), contract_of(samples, source))
    for item in spec.head.classes:
        sizes = sizes_of(samples, item.name)
        assert item.min_size == pytest.approx(sizes.min(0) / SIZE_MARGIN, abs=0.011)
        assert item.max_size == pytest.approx(sizes.max(0) * SIZE_MARGIN, abs=0.013)
        assert (sizes > item.min_size).all() and (sizes < item.max_size).all()  # no label of the training is beyond


def test_a_class_without_an_object_has_no_limit(samples, source) -> None:
    cars = [replace(sample, truth=None) for sample in samples]
    contract = contract_of(cars, source)
    assert [(item.objects, item.smallest, item.largest) for item in contract.classes] == [(0, None, None)] * 2
    for known in (contract, None):
        spec = with_limits(random_spec(), known)
        assert [(item.min_size, item.max_size) for item in spec.head.classes] == [(None, None)] * 2


def test_a_limit_of_the_config_stays(samples, source) -> None:
    spec = random_spec()
    spec.head.classes[0].max_size = (30, 3, 4)
    limited = with_limits(spec, contract_of(samples, source))
    assert limited.head.classes[0].max_size == (30, 3, 4) and limited.head.classes[0].min_size is not None
    assert spec.head.classes[0].min_size is None  # with_limits changes a copy


def test_a_contract_of_before_is_read_and_one_with_sides_survives(samples, source) -> None:
    contract = contract_of(samples, source)
    assert Contract.from_json(contract.to_json()) == contract
    document = json.loads(contract.to_json())
    for item in document["classes"]:
        del item["smallest"], item["largest"]
    old = Contract.from_json(json.dumps(document))
    assert [item.smallest for item in old.classes] == [None, None]
    assert json.loads(old.to_json()) == document


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("smallest", [99, 0.1, 0.1], "classes[0].smallest[0]"),
        ("smallest", [-1, 0.1, 0.1], "classes[0].smallest[0]"),
        ("largest", [9, 9, 0.1], "classes[0].largest[2]"),
        ("largest", [9, 9, 1001], "classes[0].largest[2]"),
        ("largest", [9, 9], "classes[0].largest"),
        ("smallest", None, "classes[0].smallest"),
    ],
)
def test_sides_that_no_labels_have_are_refused(key: str, value, where: str, samples, source) -> None:
    document = json.loads(contract_of(samples, source).to_json())
    document["classes"][0][key] = value
    with pytest.raises(Error) as caught:
        Contract.from_json(json.dumps(document))
    assert (caught.value.code, caught.value.where) == ("E0410", where)


# ---- bundles ----
@pytest.fixture(scope="module")
def old_bundle(tmp_path_factory, samples, source) -> Path:
    """A bundle whose spec has no rule of version 4, with a contract."""
    folder = tmp_path_factory.mktemp("bundle") / "old.imkd"
    spec = random_spec()
    assert not any(item.exclusive for item in spec.head.classes)
    bundle = Bundle.load(write_random_bundle(folder, spec))
    replace_contract(bundle, contract_of(samples, source, spec))
    return folder


def test_an_old_bundle_gets_the_rules_and_passes_its_self_test(old_bundle, tmp_path) -> None:
    old = Bundle.load(shutil.copytree(old_bundle, tmp_path / "new.imkd"))
    new = update_decode(old)
    assert all(item.exclusive and item.min_size and item.max_size for item in new.spec.head.classes)
    for name in ("camera.onnx", "bev.onnx"):
        assert new.manifest["files"][name] == old.manifest["files"][name]
    assert new.contract == old.contract and new.manifest["provenance"] == old.manifest["provenance"]
    assert beyond_tolerance(check_golden(new)) == {}


def test_a_second_update_changes_no_byte_of_the_golden_drive(old_bundle, tmp_path) -> None:
    once = update_decode(shutil.copytree(old_bundle, tmp_path / "new.imkd"))
    digest = once.manifest["files"]["golden.npz"]
    assert update_decode(once).manifest["files"]["golden.npz"] == digest


def test_a_bundle_without_sizes_of_labels_is_refused(tmp_path) -> None:
    with pytest.raises(Error) as caught:
        update_decode(write_random_bundle(tmp_path / "bare.imkd", random_spec()))
    assert caught.value.code == "E0410" and "imkd-edge contract" in caught.value.fix


@pytest.mark.parametrize("name", ["tiny", "tiny-t4", "astyx-lite", "astyx-taught"])
def test_a_shipped_model_has_exclusive_classes_and_limits_of_its_contract(name: str) -> None:
    bundle = Bundle.load(name)
    assert bundle.contract is not None
    for item, labels in zip(bundle.spec.head.classes, bundle.contract.classes, strict=True):
        assert item.exclusive and labels.smallest and labels.largest
        assert item.min_size == pytest.approx(np.array(labels.smallest) / SIZE_MARGIN, abs=0.006)
        assert item.max_size == pytest.approx(np.array(labels.largest) * SIZE_MARGIN, abs=0.006)
        assert (np.array(item.min_size) < labels.size).all() and (labels.size < np.array(item.max_size)).all()


@pytest.mark.parametrize("name", ["astyx-lite", "astyx-taught"])
def test_no_person_of_a_shipped_model_has_the_size_of_a_car(name: str) -> None:
    person = next(item for item in Bundle.load(name).spec.head.classes if item.name == "person")
    assert person.max_size[0] < 4.5 and person.max_size[1] < 1.9
