"""The protocol by which a source is measured: a data set's own, or for any classes `evaluation.classes`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imkd_edge.bundle import Bundle
from imkd_edge.checks.contract import training_data
from imkd_edge.errors import Code, Error
from imkd_edge.options import EvalOptions, changed, option_name
from imkd_edge.sources.base import Source
from imkd_edge.sources.nuscenes.labels import CATEGORIES
from imkd_edge.sources.vod import VodSource

AUTO = "auto"  # of EvalOptions.protocol
KITTI, VOD, NUSCENES, CLASSES = "kitti", "vod", "nuscenes", "classes"
RANGED = (KITTI, CLASSES)  # protocols that know ranges
KITTI_ONLY = ("per_block", "per_radar")  # options of EvalOptions


def protocol_of(source: Source, options: EvalOptions, classes: Mapping[str, str] | None = None) -> str:
    """The protocol of the options; with "auto" that of the data set, where its classes are meant.

    Astyx: kitti; View-of-Delft: vod; nuScenes and synth, where data and model have no class beside nuScenes' ten:
    nuscenes; everything else: classes.

    Args:
        classes: label of the data -> class of the model; None: unknown.
    Raises:
        Error: spec_bad_value for another word, or nuscenes with other classes than its ten.
    """
    foreign = sorted(_classes(source, classes) - set(CATEGORIES))
    if options.protocol == AUTO:
        if source.kind == "astyx":
            return KITTI
        if isinstance(source, VodSource):
            return VOD
        truckscenes = getattr(getattr(source, "tables", None), "truckscenes", False)
        return NUSCENES if source.kind in ("nuscenes", "synth") and not foreign and not truckscenes else CLASSES
    if options.protocol not in (KITTI, NUSCENES, CLASSES):
        fix = f"choose one of {AUTO}, {CLASSES}, {KITTI}, {NUSCENES}"
        raise Error(Code.spec_bad_value, f"there is no protocol {options.protocol!r}", "--protocol", fix)
    if options.protocol == NUSCENES and foreign:
        what = f"nuScenes has no class {foreign[0]!r}; its classes are {', '.join(CATEGORIES)}"
        raise Error(Code.spec_bad_value, what, "--protocol", f"choose --protocol {CLASSES}")
    return options.protocol


def _classes(source: Source, classes: Mapping[str, str] | None) -> set[str]:
    """The classes of the model and, where it names them, of the source."""
    return {*(classes or {}).values(), *(getattr(source, "classes", None) or ())}


def check_protocol(source: Source, options: EvalOptions, classes: Mapping[str, str] | None = None) -> str:
    """Checks that the protocol of a source can do what the options say, before any frame runs; returns it.

    Raises: Error spec_bad_value for options of another protocol, missing_extra without a devkit.
    """
    protocol = protocol_of(source, options, classes)
    if protocol == KITTI:
        return protocol
    names = KITTI_ONLY if protocol in RANGED else ("per_range", *KITTI_ONLY)
    foreign = [name for name in map(option_name, names) if name in changed(options)]
    if foreign:
        what = "blocks and returns belong to KITTI's protocol, which is Astyx's, ranges to it and to --protocol classes"
        raise Error(Code.spec_bad_value, what, f"protocol {protocol}", f"leave out {', '.join(foreign)}")
    if protocol == VOD:
        from imkd_edge.evaluation import vod

        vod.load_devkit()
    elif protocol == NUSCENES:
        from imkd_edge.evaluation import nuscenes

        nuscenes.load_devkit()
    return protocol


def classes_of(bundle: Bundle) -> dict[str, str]:
    """Label -> class of a bundle's model: those of its training, and each class by its own name."""
    names = {item.name: item.name for item in bundle.spec.head.classes}
    try:
        trained: dict[str, Any] = training_data(bundle)["classes"]
    except Error:  # a bundle without the config of its training
        trained = {}
    return {**names, **{label: name for label, name in trained.items() if name in names}}
