"""Rules of decoding that follow from the training's labels: limits of each class's size, and exclusive classes."""

from __future__ import annotations

import os

from imkd_edge.bundle import PARTS, Bundle, write_bundle
from imkd_edge.bundle.contract import Contract, Size
from imkd_edge.bundle.golden import golden_rig, read_golden
from imkd_edge.checks.observe import open_parts
from imkd_edge.checks.selftest import with_results
from imkd_edge.errors import Code, Error
from imkd_edge.spec import ModelSpec

SIZE_MARGIN = 1.5  # the limits are the smallest label of the training divided by it, and the largest one times it


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

    The networks stay; the results of the golden drive are made anew.

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
    files = {name: bundle.read(name) for name in bundle.manifest["files"]}
    parts = {part: files.pop(f"{part}.onnx") for part in PARTS}

    del files["golden.npz"]
    with open_parts(spec, golden_rig(bundle), parts) as detector:
        golden = with_results(read_golden(bundle), detector)
    manifest = bundle.manifest
    return write_bundle(
        bundle.path, spec, parts["camera"], parts["bev"], golden, manifest["metrics"], manifest["provenance"], files,
        bundle.contract,
    )  # fmt: skip


def _scaled(size: Size, factor: float) -> Size:
    length, width, height = (round(side * factor, 2) for side in size)
    return length, width, height
