"""Configs: the shipped ones load, and every mistake is named."""

import pytest

from imkd_edge.errors import Error
from imkd_edge.training.config import CONFIGS, from_dict, load_config, tomllib

SHIPPED = sorted(p.stem for p in CONFIGS.glob("*.toml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configs_load_and_survive_their_dictionary(name):
    config = load_config(name)
    assert config.name == name == config.spec.name
    assert from_dict(config.to_dict(), "again").to_dict() == config.to_dict()


def tree() -> dict:
    return tomllib.loads((CONFIGS / "tiny.toml").read_text())


def edited(path: str, value) -> dict:
    config = tree()
    *parents, last = path.split(".")
    at = config
    for key in parents:
        at = at[key]
    at[last] = value
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
        ("model", 3, "E0601"),
        ("data.classes", {"car": "vehicle"}, "E0601"),
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


def test_missing_files_and_broken_toml_are_named(tmp_path):
    with pytest.raises(Error, match=r"shipped configs: .*tiny") as error:
        load_config("tinny")
    assert error.value.code == "E0601"
    (tmp_path / "bad.toml").write_text("[spec\n")
    with pytest.raises(Error, match="not TOML") as error:
        load_config(tmp_path / "bad.toml")
    assert error.value.code == "E0601"
