"""ModelSpec: strict JSON, nothing lost, nothing invalid."""

import copy
import json
import pickle
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

import pytest
from op_cases import random_rig

from imkd_edge import Error, ModelSpec
from imkd_edge.ops import ground_of
from imkd_edge.spec import ClassSpec, GridSpec, HeadSpec, HistorySpec, ImageSpec, RadarFeature, RadarSpec

Path = tuple[str | int, ...]


def make_spec() -> ModelSpec:
    truck = ClassSpec(name="truck", group=1, nms_radius=2.5, exclusive=False)
    return ModelSpec(
        name="test",
        cameras=2,
        image=ImageSpec(width=128, height=64, stride=16),
        radar=RadarSpec(
            cell=0.4,
            features=[RadarFeature(statistic="log_count"), RadarFeature(statistic="z_mean", offset=1.5, scale=0.1)],
        ),
        head=HeadSpec(classes=[ClassSpec(name="car", min_size=(2, 1, 1), max_size=(7, 2.5, 3)), truck]),
        history=HistorySpec(frames=3, interval=0.5, channels=64),
    )


def document() -> dict[str, Any]:
    return json.loads(make_spec().to_json())


def leaves(node: Any, path: Path = ()) -> Iterator[Path]:
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from leaves(value, (*path, key))
    else:
        yield path


def at(node: Any, path: Path) -> Any:
    return reduce(lambda part, key: part[key], path, node)


def put(node: Any, path: Path, value: Any) -> Any:
    at(node, path[:-1])[path[-1]] = value
    return node


def without(doc: dict, *path: str) -> dict:
    del at(doc, path[:-1])[path[-1]]
    return doc


# Another valid value for each field; grids change by whole cells.
OTHER = {
    "name": "other", "cameras": 3, "context_channels": 81,
    "image.width": 144, "image.height": 80, "image.stride": 8, "image.anchor": 0.25,
    "depth.min": 2.5, "depth.max": 59.125, "depth.bins": 71, "depth.spacing": "log",
    "grid.x_min": -52.0, "grid.x_max": 52.0, "grid.y_min": -52.0, "grid.y_max": 52.0,
    "grid.z_min": -4.75, "grid.z_max": 3.25, "grid.cell": 1.6, "radar.cell": 0.8,
    "radar.max_points": 20001, "radar.max_age": 0.61,
    "radar.features.0.statistic": "age_min", "radar.features.1.statistic": "phase_sin",
    "head.classes.0.name": "bus", "head.classes.1.name": "bus", "head.classes.1.group": 0,
    "head.classes.0.exclusive": False, "head.classes.1.exclusive": True,
    "head.score_threshold": 0.11, "head.max_candidates": 501, "head.max_detections": 201,
    "history.frames": 2, "history.interval": 0.75, "history.channels": 65, "segmentation": True,
}  # fmt: skip
FIELDS = [path for path in leaves(document()) if path != ("version",)]


def other(path: Path, value: Any) -> Any:
    key = ".".join(map(str, path))
    return OTHER.get(key, value + 0.125 if isinstance(value, float) else None)


def mutated(path: Path) -> dict[str, Any]:
    doc = document()
    if path == ("head", "classes", 0, "group"):  # groups are numbered without gaps: the two classes swap
        doc["head"]["classes"][1]["group"] = 0
        return put(doc, path, 1)
    return put(doc, path, other(path, at(doc, path)))


@pytest.mark.parametrize("path", FIELDS, ids=lambda p: ".".join(map(str, p)))
def test_each_field_survives_the_round_trip_and_is_noticed(path: Path) -> None:
    doc, original = mutated(path), make_spec()
    assert at(doc, path) is not None and at(doc, path) != at(document(), path)
    spec = ModelSpec.from_json(json.dumps(doc))
    assert json.loads(spec.to_json()) == doc and spec.to_json() != original.to_json()
    assert spec != original and ModelSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("path", FIELDS, ids=lambda p: ".".join(map(str, p)))
def test_each_attribute_set_in_python_is_written(path: Path) -> None:
    spec, doc = make_spec(), mutated(path)
    if path == ("head", "classes", 0, "group"):
        spec.head.classes[1].group = 0
    elif path[-2:-1] in (("mean",), ("std",), ("min_size",), ("max_size",)):
        path = path[:-1]  # tuples are replaced as a whole
    part = reduce(lambda p, key: p[key] if isinstance(key, int) else getattr(p, key), path[:-1], spec)
    setattr(part, path[-1], at(doc, path))
    got = getattr(part, path[-1])
    assert (list(got) if isinstance(got, tuple) else got) == at(doc, path)
    assert json.loads(spec.to_json()) == doc


def test_every_field_is_in_the_round_trip() -> None:
    assert len(FIELDS) == 54 and {path[0] for path in FIELDS} == set(document()) - {"version"}


def test_the_json_is_canonical() -> None:
    text = make_spec().to_json()
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"
    assert '"version": 4' in text and "0.1," in text  # 0.1f is written as 0.1


def older(version: int) -> dict[str, Any]:
    """The document as version 1, 2 or 3 has it."""
    doc = document() | {"version": version}
    for item in doc["head"]["classes"]:
        for key in ("exclusive", "min_size", "max_size"):
            item.pop(key, None)
    if version < 3:
        doc["ground_plane"] = [0.0, 0.0, 0.0]
    return without(without(doc, "history"), "segmentation") if version == 1 else doc


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_older_version_keeps_its_boxes_neither_exclusive_nor_limited(version: int) -> None:
    spec = ModelSpec.from_json(json.dumps(older(version)))
    assert [(c.exclusive, c.min_size, c.max_size) for c in spec.head.classes] == [(False, None, None)] * 2
    written = json.loads(spec.to_json())
    assert written["version"] == 4 and ModelSpec.from_json(json.dumps(written)) == spec
    for item in written["head"]["classes"]:
        assert item.pop("exclusive") is False and not item.keys() & {"min_size", "max_size"}
    assert written["head"] == older(version)["head"]


def test_a_new_class_is_exclusive_and_of_any_size() -> None:
    item = ClassSpec(name="car")
    assert (item.exclusive, item.min_size, item.max_size) == (True, None, None)


def test_version_1_is_read_with_neither_history_nor_segmentation_and_written_as_version_4() -> None:
    spec = ModelSpec.from_json(json.dumps(older(1)))
    assert (spec.history.frames, spec.history.channels, spec.segmentation) == (0, 0, False)
    written = json.loads(spec.to_json())
    assert written.pop("history") == {"frames": 0, "interval": 0.5, "channels": 0}
    assert written.pop("segmentation") is False
    assert {k: v for k, v in written.items() if k != "head"} == {
        k: v for k, v in older(1).items() if k not in ("head", "ground_plane")
    } | {"version": 4}


@pytest.mark.parametrize("version", [1, 2, 4])
def test_the_ground_plane_of_an_older_model_is_read_and_written(version: int) -> None:
    doc = (document() if version == 4 else older(version)) | {"ground_plane": [0.5, -1.0, 2.0]}
    spec = ModelSpec.from_json(json.dumps(doc))
    assert spec.legacy_plane == (0.5, -1, 2) and json.loads(spec.to_json())["ground_plane"] == [0.5, -1, 2]
    assert spec != make_spec() and pickle.loads(pickle.dumps(spec)).legacy_plane == spec.legacy_plane


def test_a_rig_that_names_no_plane_stands_on_that_of_version_2() -> None:
    spec, rig = make_spec(), random_rig(0)
    spec.legacy_plane = (0.25, 0.0, -1.0)
    assert ground_of(spec, rig) == (0.25, 0, -1)
    rig.ground_plane = (0.0, 0.0, 0.5)
    assert ground_of(spec, rig) == (0, 0, 0.5) and ground_of(make_spec(), random_rig(0)) == (0, 0, 0)


def test_copies_are_equal_and_independent() -> None:
    spec = make_spec()
    for twin in (copy.copy(spec), copy.deepcopy(spec), pickle.loads(pickle.dumps(spec))):
        assert twin == spec
        twin.head.classes[0].name = "tram"
        assert twin != spec and spec.head.classes[0].name == "car"


def test_lists_are_changed_in_place() -> None:
    spec = make_spec()
    spec.radar.features = [*spec.radar.features, RadarFeature(statistic="age_min")]
    spec.radar.features[-2] = RadarFeature(statistic="z_max")
    spec.head.classes[0].nms_radius = 7
    assert [f["statistic"] for f in json.loads(spec.to_json())["radar"]["features"]] == [
        "log_count",
        "z_max",
        "age_min",
    ]
    assert json.loads(spec.to_json())["head"]["classes"][0]["nms_radius"] == 7
    assert [c.name for c in spec.head.classes] == ["car", "truck"] and len(spec.head.classes) == 2
    for index in (2, -3):
        with pytest.raises(IndexError):
            spec.head.classes[index]


TRAMS = [ClassSpec(name="tram"), ClassSpec(name="a name so long that it lies on the heap", group=1)]


@pytest.mark.parametrize(
    "replace",
    [
        lambda spec: setattr(spec.head, "classes", TRAMS),  # as long as the one before: the same memory would do
        lambda spec: setattr(spec.head, "classes", TRAMS * 500),
        lambda spec: setattr(spec, "head", HeadSpec(classes=TRAMS)),
    ],
    ids=["by a list as long", "by a longer list", "with its owner"],
)
def test_an_item_stays_what_it_is_when_its_list_is_replaced(replace: Callable[[ModelSpec], None]) -> None:
    spec = make_spec()
    car, truck = spec.head.classes
    replace(spec)
    assert (car.name, truck.name, truck.nms_radius) == ("car", "truck", 2.5) and spec.head.classes[0].name == "tram"
    car.name = "no more of this spec"
    assert spec.head.classes[0].name == "tram"


@pytest.mark.parametrize("change", ["append", "clear", "extend", "insert", "pop"])
def test_no_list_moves_its_items_by_growing_or_shrinking(change: str) -> None:
    assert not hasattr(make_spec().head.classes, change)


def test_sizes_follow_from_the_fields() -> None:
    spec = make_spec()
    assert (spec.grid.width(), spec.grid.height(), spec.radar_width(), spec.radar_height()) == (128, 128, 256, 256)
    assert (spec.image.feature_width(), spec.image.feature_height(), spec.head.groups()) == (8, 4, 2)
    for stride in (0, -1):
        for size in (ImageSpec(stride=stride).feature_width, ImageSpec(stride=stride).feature_height):
            with pytest.raises(Error) as caught:
                size()
            assert (caught.value.code, caught.value.where) == ("E0104", "image.stride")
    assert spec.depth.edge(0) == 2 and spec.depth.edge(70) == 58 and spec.depth.edge(35) == 30
    spec.depth.spacing = "log"
    assert spec.depth.edge(35) == pytest.approx((2 * 58) ** 0.5) and spec.depth.edge(70) == pytest.approx(58)


def test_a_misspelt_attribute_is_an_error() -> None:
    with pytest.raises(AttributeError):
        make_spec().image.widht = 3
    with pytest.raises(TypeError, match="widht"):
        ImageSpec(widht=3)


def bad(path: str, value: Any) -> dict:
    return put(document(), tuple(int(p) if p.isdigit() else p for p in path.split(".")), value)


BAD = {
    "empty text": ("E0101", "", ""),
    "cut off": ("E0101", make_spec().to_json()[:200], ""),
    "a list": ("E0101", "[]", ""),
    "a key twice": ("E0101", '{"version": 1, "version": 1}', ""),
    "not a number": ("E0101", make_spec().to_json().replace("58.0", "NaN"), ""),
    "beyond float64": ("E0101", make_spec().to_json().replace("58.0", "1e999"), ""),
    "unknown key": ("E0102", bad("imgae", {}), "imgae"),
    "unknown nested key": ("E0102", bad("image.widht", 3), "image.widht"),
    "unknown key in a list": ("E0102", bad("head.classes.1.radius", 3), "head.classes[1].radius"),
    "missing part": ("E0103", without(document(), "depth"), "depth"),
    "missing field": ("E0103", without(document(), "grid", "cell"), "grid.cell"),
    "missing version": ("E0103", without(document(), "version"), "version"),
    "next version": ("E0105", bad("version", 5), "version"),
    "version 2 without its ground plane": ("E0103", without(older(2), "ground_plane"), "ground_plane"),
    "version 3 with a ground plane": ("E0102", older(3) | {"ground_plane": [0, 0, 0]}, "ground_plane"),
    "version 3 with an exclusive class": ("E0102", bad("version", 3), "head.classes[0].exclusive"),
    "version 3 with a limit": (
        "E0102", put(older(3), ("head", "classes", 1, "max_size"), [9, 3, 4]), "head.classes[1].max_size"
    ),
    "missing exclusive": ("E0103", without(document(), "head", "classes", 1, "exclusive"), "head.classes[1].exclusive"),
    "number for exclusive": ("E0104", bad("head.classes.0.exclusive", 1), "head.classes[0].exclusive"),
    "2 sides": ("E0104", bad("head.classes.0.min_size", [1, 1]), "head.classes[0].min_size"),
    "one number for 3 sides": ("E0104", bad("head.classes.0.max_size", 7), "head.classes[0].max_size"),
    "a limit as text": ("E0104", bad("head.classes.0.max_size.1", "2"), "head.classes[0].max_size[1]"),
    "a limit of null": ("E0104", bad("head.classes.0.max_size", None), "head.classes[0].max_size"),
    "a negative side": ("E0104", bad("head.classes.0.min_size.2", -0.1), "head.classes[0].min_size[2]"),
    "a side of 0 at most": ("E0104", bad("head.classes.0.max_size.0", 0), "head.classes[0].max_size[0]"),
    "a side beyond 1 km": ("E0104", bad("head.classes.0.max_size.0", 1000.5), "head.classes[0].max_size[0]"),
    "limits that cross": ("E0104", bad("head.classes.0.min_size.1", 2.6), "head.classes[0].min_size[1]"),
    "limits that meet": ("E0104", bad("head.classes.0.min_size.1", 2.5), "head.classes[0].min_size[1]"),
    "a misspelt limit": ("E0102", bad("head.classes.0.maxsize", [7, 3, 3]), "head.classes[0].maxsize"),
    "classes beyond the limit": (
        "E0104", put(document(), ("head", "classes"), document()["head"]["classes"] * 33), "head.classes"
    ),
    "version 0": ("E0105", bad("version", 0), "version"),
    "version 1 with a key of version 2": ("E0102", older(2) | {"version": 1}, "history"),
    "missing history": ("E0103", without(document(), "history"), "history"),
    "missing segmentation": ("E0103", without(document(), "segmentation"), "segmentation"),
    "version as text": ("E0104", bad("version", "1"), "version"),
    "text for a number": ("E0104", bad("grid.cell", "0.8"), "grid.cell"),
    "number for text": ("E0104", bad("name", 3), "name"),
    "boolean for a number": ("E0104", bad("image.anchor", True), "image.anchor"),
    "fraction for a whole number": ("E0104", bad("cameras", 2.5), "cameras"),
    "whole number beyond int": ("E0104", bad("cameras", 2**40), "cameras"),
    "list for an object": ("E0104", bad("image", []), "image"),
    "object for a list": ("E0104", bad("radar.features", {}), "radar.features"),
    "null": ("E0104", bad("radar.max_age", None), "radar.max_age"),
    "2 means": ("E0104", bad("image.mean", [1, 2]), "image.mean"),
    "mean beyond float32": ("E0104", bad("image.mean.1", 1e300), "image.mean[1]"),
    "std 0": ("E0104", bad("image.std.2", 0), "image.std[2]"),
    "unknown spacing": ("E0104", bad("depth.spacing", "cubic"), "depth.spacing"),
    "unknown statistic": ("E0104", bad("radar.features.1.statistic", "z_median"), "radar.features[1].statistic"),
    "empty name": ("E0104", bad("name", ""), "name"),
    "no camera": ("E0104", bad("cameras", 0), "cameras"),
    "width not of the stride": ("E0104", bad("image.width", 130), "image.width"),
    "height not of the stride": ("E0104", bad("image.height", 65), "image.height"),
    "stride 0": ("E0104", bad("image.stride", 0), "image.stride"),
    "anchor above 1": ("E0104", bad("image.anchor", 1.01), "image.anchor"),
    "depth from 0": ("E0104", bad("depth.min", 0), "depth.min"),
    "depth falls": ("E0104", bad("depth.max", 1.0), "depth.min"),
    "no bins": ("E0104", bad("depth.bins", 0), "depth.bins"),
    "grid empty": ("E0104", bad("grid.x_max", -51.2), "grid.x_min"),
    "z window empty": ("E0104", bad("grid.z_max", -5), "grid.z_min"),
    "cell does not divide the grid": ("E0104", bad("grid.cell", 0.7), "grid.cell"),
    "cell 0": ("E0104", bad("grid.cell", 0), "grid.cell"),
    "radar cell does not divide the cell": ("E0104", bad("radar.cell", 0.3), "radar.cell"),
    "millions of cells": ("E0104", bad("radar.cell", 1e-5), "radar.cell"),
    "no radar features": ("E0104", bad("radar.features", []), "radar.features"),
    "scale 0": ("E0104", bad("radar.features.0.scale", 0), "radar.features[0].scale"),
    "no points": ("E0104", bad("radar.max_points", 0), "radar.max_points"),
    "negative age": ("E0104", bad("radar.max_age", -1), "radar.max_age"),
    "no classes": ("E0104", bad("head.classes", []), "head.classes"),
    "class twice": ("E0104", bad("head.classes.1.name", "car"), "head.classes[1].name"),
    "a gap in the groups": ("E0104", bad("head.classes.1.group", 2), "head.classes"),
    "negative group": ("E0104", bad("head.classes.0.group", -1), "head.classes[0].group"),
    "negative radius": ("E0104", bad("head.classes.0.nms_radius", -0.1), "head.classes[0].nms_radius"),
    "threshold 1": ("E0104", bad("head.score_threshold", 1), "head.score_threshold"),
    "threshold 0": ("E0104", bad("head.score_threshold", 0), "head.score_threshold"),
    "no candidates": ("E0104", bad("head.max_candidates", 0), "head.max_candidates"),
    "negative history": ("E0104", bad("history.frames", -1), "history.frames"),
    "endless history": ("E0104", bad("history.frames", 17), "history.frames"),
    "history of one moment": ("E0104", bad("history.interval", 0), "history.interval"),
    "history without channels": ("E0104", bad("history.channels", 0), "history.channels"),
    "channels without history": ("E0104", bad("history.frames", 0), "history.channels"),
    "history beyond int32": (
        "E0104", bad("history.channels", 8192) | {"grid": document()["grid"] | {"cell": 0.4}}, "history.channels"
    ),
    "number for true": ("E0104", bad("segmentation", 1), "segmentation"),
    "tensors beyond int32": (
        "E0104",
        bad("image", document()["image"] | {"width": 8192, "height": 8192}) | {"cameras": 64},
        "image.width",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_document_is_refused_with_its_code_and_place(case: str) -> None:
    code, doc, where = BAD[case]
    with pytest.raises(Error) as caught:
        ModelSpec.from_json(doc if isinstance(doc, str) else json.dumps(doc))
    assert (caught.value.code, caught.value.where) == (code, where)


def test_a_misspelt_key_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(Error) as caught:
        ModelSpec.from_json(json.dumps(bad("image.achor", 1)))
    assert caught.value.fix == 'did you mean "anchor"?'
    assert str(caught.value) == 'error[E0102] unknown key "achor" / image.achor / did you mean "anchor"?'


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda s: setattr(s, "grid", GridSpec(cell=0.9)), "grid.cell"),
        (lambda s: setattr(s.depth, "max", float("nan")), "depth.min"),
        (lambda s: setattr(s, "legacy_plane", (0, float("inf"), 0)), "ground_plane[1]"),
        (lambda s: setattr(s.radar.features[0], "offset", float("inf")), "radar.features[0].offset"),
        (lambda s: setattr(s.head, "classes", []), "head.classes"),
        (lambda s: setattr(s.head.classes[1], "max_size", (1, float("nan"), 1)), "head.classes[1].max_size[1]"),
        (lambda s: setattr(s.head.classes[0], "min_size", (8, 0, 0)), "head.classes[0].min_size[0]"),
    ],
)
def test_an_invalid_spec_made_in_python_is_neither_accepted_nor_written(change: Any, where: str) -> None:
    spec = make_spec()
    change(spec)
    for call in (spec.check, spec.to_json):
        with pytest.raises(Error) as caught:
            call()
        assert (caught.value.code, caught.value.where) == ("E0104", where)


@pytest.mark.parametrize(("groups", "side", "fits"), [(4, 8192, False), (4, 4096, True), (3, 8192, True)])
def test_a_box_tensor_beyond_int32_is_refused(groups: int, side: int, fits: bool) -> None:
    """Ten channels per group and cell: the kernels index them by int32."""
    doc = document()
    doc["grid"] |= {"x_min": 0.0, "x_max": float(side), "y_min": 0.0, "y_max": float(side), "cell": 1.0}
    doc["radar"]["cell"], doc["radar"]["features"] = 1.0, doc["radar"]["features"][:1]
    doc["context_channels"], doc["history"] = 1, {**doc["history"], "frames": 0, "channels": 0}
    some = doc["head"]["classes"][0]
    doc["head"]["classes"] = [{**some, "name": f"class {i}", "group": i} for i in range(groups)]
    assert (groups * 10 * side * side <= 2**31 - 1) == fits
    if fits:
        assert ModelSpec.from_json(json.dumps(doc)).head.groups() == groups
        return
    with pytest.raises(Error) as raised:
        ModelSpec.from_json(json.dumps(doc))
    assert raised.value.code == "E0104" and "box tensor" in raised.value.what
