"""Configs: the shipped ones load, and every mistake raises its error."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from imkd_edge.errors import Error
from imkd_edge.training.config import CONFIGS, from_dict, load_config, tomllib
from imkd_edge.training.models.camera import TimmBackbone

SHIPPED = sorted(p.stem for p in CONFIGS.glob("*.toml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configs_load_and_round_trip_through_a_dictionary(name):
    config = load_config(name)
    assert config.name == name == config.spec.name
    assert from_dict(config.to_dict(), "again").to_dict() == config.to_dict()


def tree() -> dict:
    return tomllib.loads((CONFIGS / "tiny.toml").read_text())


def edited(path: str, value) -> dict:
    config = tree()
    *parents, last = path.split(".")
    section = config
    for key in parents:
        section = section[key]
    section[last] = value
    return config


@pytest.mark.parametrize(
    "path, value, code",
    [
        ("train.epoch", 3, "E0601"),
        ("train.epochs", "three", "E0601"),
        ("train.rate", True, "E0601"),
        ("model.backbone", 18, "E0601"),
        ("augment.flip", 1, "E0601"),
        ("optimiser", {}, "E0601"),
        ("name", 3, "E0601"),
        ("train.epochs", 0, "E0601"),
        ("train.epochs", 2.5, "E0601"),
        ("train.batch", -4, "E0601"),
        ("train.batch", 4.0, "E0601"),
        ("train.ema", float("nan"), "E0601"),
        ("train.rate", -1e-3, "E0601"),
        ("train.clip", 0.0, "E0601"),
        ("train.workers", -1, "E0601"),
        ("model.bev_channels", 32.0, "E0601"),
        ("model.pretrained", True, "E0601"),
        ("augment.drop_points", 3.0, "E0601"),
        ("augment.rotation", float("inf"), "E0601"),
        ("augment.tilt", 90.0, "E0601"),
        ("data.options", 3, "E0601"),
        ("data.classes", ["car"], "E0601"),
        ("data.classes", {"car": 3}, "E0601"),
        ("spec.image.stride", 32, "E0601"),
        ("model", 3, "E0601"),
        ("data.classes", {"car": "vehicle"}, "E0601"),
        ("data.classes", {"car": "car"}, "E0601"),  # no label for trucks
        ("spec.image.height", 136, "E0601"),  # a multiple of the stride, but not of 32
        ("spec.image.widht", 256, "E0102"),
        ("spec.image.width", 250, "E0104"),
        ("spec.depth.spacing", "cubic", "E0104"),
        ("spec.grid.cell", 0.7, "E0104"),
        ("spec.version", 99, "E0105"),
    ],
)
def test_each_mistake_has_its_code(path, value, code):
    with pytest.raises(Error) as error:
        from_dict(edited(path, value), "test")
    assert error.value.code == code


def test_missing_files_and_invalid_toml_are_reported(tmp_path):
    with pytest.raises(Error, match=r"a shipped one: .*tiny") as error:
        load_config("tinny")
    assert error.value.code == "E0601"
    (tmp_path / "bad.toml").write_text("[spec\n")
    with pytest.raises(Error, match="not TOML") as error:
        load_config(tmp_path / "bad.toml")
    assert error.value.code == "E0601"


@pytest.mark.parametrize(
    "section, key, value, problem",
    [
        ("model", "bev_channels", 16, "history has 32 channels"),
        ("data", "vehicles", [], "segmentation without"),
        ("data", "vehicles", "car", "'vehicles' is 'car'"),
        ("model", "frozen_backbone", True, "variants cache features of single frames"),
        ("model", "weights", "x.pth", "both pretrained and weights"),
    ],
)
def test_sections_that_contradict_each_other_are_refused(section, key, value, problem):
    config = load_config("tiny-t4").to_dict()
    config["augment"]["variants"] = 2
    config["model"]["pretrained"] = True
    config[section][key] = value
    with pytest.raises(Error, match=problem) as error:
        from_dict(config, "test")
    assert error.value.code == "E0601"


@pytest.mark.parametrize("name", ["r50-nuscenes", "r18-nuscenes", "r50-imkd"])
def test_the_papers_configuration_equals_the_published_one(name):
    spec = load_config(name).spec
    assert (spec.image.width, spec.image.height, spec.image.stride, spec.cameras) == (704, 256, 16, 6)
    assert (spec.grid.width(), spec.grid.height(), spec.grid.x_min, spec.grid.y_max) == (128, 128, -51.2, 51.2)
    assert [spec.depth.edge(i) for i in (0, 1, 70)] == pytest.approx([2.0, 2.8, 58.0])
    assert (spec.context_channels, spec.history.frames + 1) == (80, 4)
    assert (len(spec.head.classes), spec.head.groups()) == (10, 6)
    groups = [[c.name for c in spec.head.classes if c.group == g] for g in range(6)]
    assert groups[1:3] == [["truck", "construction_vehicle"], ["bus", "trailer"]]
    assert groups[4] == ["motorcycle", "bicycle"]
    squared = [next(c.nms_radius for c in spec.head.classes if c.group == g) ** 2 for g in range(6)]
    assert squared == pytest.approx([4, 12, 10, 1, 0.85, 0.175], rel=1e-2)


def test_what_is_called_imkd_has_its_terms_and_the_recipe_that_won_has_none():
    imkd, recipe = load_config("r50-imkd").distill, load_config("r50-nuscenes").distill
    assert imkd.radar and imkd.fused and imkd.label and imkd.response and not imkd.inherit
    assert recipe.inherit and not recipe.has_terms
    assert load_config("r18-nuscenes").distill == recipe == load_config("tiny-t4").distill


def test_backbone_weights_load_from_a_local_file(tmp_path):
    classifier = timm.create_model("resnet18", pretrained=False)
    torch.save(classifier.state_dict(), tmp_path / "r18.pth")
    save_file(classifier.state_dict(), tmp_path / "r18.safetensors")
    for name in ("r18.pth", "r18.safetensors"):
        net = TimmBackbone("resnet18", False, str(tmp_path / name)).net
        assert all(torch.equal(value, classifier.state_dict()[key]) for key, value in net.state_dict().items())
    (tmp_path / "bad.pth").write_bytes(b"no")
    for backbone, name, problem in [
        ("resnet18", "none.pth", "unreadable"),
        ("resnet18", "bad.pth", "unreadable"),
        ("resnet50", "r18.pth", "in the right shape"),
    ]:
        with pytest.raises(Error, match=problem) as error:
            TimmBackbone(backbone, False, str(tmp_path / name))
        assert error.value.code == "E0601"
