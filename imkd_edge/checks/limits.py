"""Rules of decoding that follow from the training's labels: limits of each class's size, and exclusive classes."""

from __future__ import annotations

import os

import numpy as np

from imkd_edge.bundle import PARTS, Bundle, write_bundle
from imkd_edge.bundle.contract import Contract, Size
from imkd_edge.bundle.golden import read_golden
from imkd_edge.checks.observe import open_parts
from imkd_edge.checks.selftest import golden_with
from imkd_edge.errors import Code, Error
from imkd_edge.spec import ModelSpec

SIZE_MARGIN = 1.5  # the limits are the smallest label of the training divided by it, and the largest one times it
BOXES = ("boxes", "scores", "labels")  # what decoding makes of golden.npz


def with_limits(spec: ModelSpec, contract: Contract | None) -> ModelSpec:
    """A copy of a spec whose classes have limits of size: those of the training's labels, SIZE_MARGIN wider.

    Args:
        spec: of the model; a limit that it has already stays.
        contract: of the training. Where it is None, or has no object of a class, that class gets no limit.
    """
    spec = ModelSpec.from_json(spec.to_json())
    if contract is None:
        return spec
    for item, labels in zip(spec.head.classes, contract.classes, strict=True):
        if labels.smallest and labels.largest:
            item.min_size = item.min_size or _scaled(labels.smallest, 1 / SIZE_MARGIN)
            item.max_size = item.max_size or _scaled(labels.largest, SIZE_MARGIN)
    return spec


def update_decode(bundle: str | os.PathLike[str] | Bundle) -> Bundle:
    """Gives a bundle of an older spec the rules of a new one: exclusive classes, and `with_limits` of its contract.

    The networks and their tensors stay; boxes of the golden frame change where the rules change them.

    Raises:
        Error: bundle_bad_value where the bundle has no contract with the sizes of its labels, write_failed.
    """
    bundle = Bundle.load(bundle)
    if bundle.contract is None or not any(item.smallest for item in bundle.contract.classes):
        fix = "measure it with imkd-edge contract"
        raise Error(Code.bundle_bad_value, "its contract lacks the sizes of labels", str(bundle.path), fix)
    spec = with_limits(bundle.spec, bundle.contract)
    for item in spec.head.classes:
        item.exclusive = True
    files = {name: bundle.file(name).read_bytes() for name in bundle.manifest["files"]}
    parts = {part: files.pop(f"{part}.onnx") for part in PARTS}

    golden, rig = read_golden(bundle)
    with open_parts(spec, rig, parts) as detector:
        result = golden_with(golden, detector)
    if not _same_boxes(golden, result):
        golden = {**golden, **{name: result[name] for name in BOXES}}
        del files["golden.npz"]  # otherwise its bytes stay
    manifest = bundle.manifest
    return write_bundle(
        bundle.path, spec, parts["camera"], parts["bev"], golden, manifest["metrics"], manifest["provenance"], files,
        bundle.contract,
    )  # fmt: skip


def _scaled(size: Size, factor: float) -> Size:
    length, width, height = (round(side * factor, 2) for side in size)
    return length, width, height


def _same_boxes(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Whether two golden frames have the same labels, in the same order, with the same scores but for rounding."""
    same = np.array_equal(one["labels"], other["labels"])
    return same and bool(np.allclose(one["scores"], other["scores"], rtol=0, atol=1e-3))
