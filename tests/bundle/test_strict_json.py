"""Files of JSON that we write hold no NaN and no Infinity: other readers refuse them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from imkd_edge.bundle.files import strict_json
from imkd_edge.result import Detection
from imkd_edge.view.page import document

VALUES = {"a": math.inf, "b": [-math.inf, math.nan, 1.5], "c": np.float32("inf"), "d": np.array([1, np.nan]), "e": (1,)}
PLAIN = {"a": None, "b": [None, None, 1.5], "c": None, "d": [1.0, None], "e": [1]}


def strict(text: str) -> object:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_are_not_finite_are_null() -> None:
    assert strict(strict_json(VALUES)) == PLAIN


def test_a_page_embeds_strict_json() -> None:
    page = document("page", [], VALUES)
    script = page.split('id="result">')[1].split("</script>")[0]
    assert strict(script) == PLAIN


def test_a_detection_with_an_infinite_velocity_is_strict_json() -> None:
    box = np.ones(3, np.float32)
    detection = Detection("car", 0.5, box, box, 0.0, np.array([np.inf, 0], np.float32))
    assert strict(strict_json(detection.to_dict()))["velocity"] == [None, 0.0]


def test_the_log_of_a_training_whose_loss_overflows_is_strict_json(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("torch")
    from imkd_edge.training import run as module

    class NoEvents:
        def __init__(self, *_: object) -> None: ...

        def write(self, line: object) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(module, "Events", NoEvents)
    monkeypatch.setattr(module, "Pace", lambda *_: SimpleNamespace(left=lambda *_: 0))
    run = object.__new__(module.Run)
    train = SimpleNamespace(epochs=1, batch=1, accumulate=1, tensorboard=False)
    run.settings, run.stage = SimpleNamespace(train=train), SimpleNamespace(name="student")
    run.dataset, run.folder, run.epoch, run.validation = [0], tmp_path, 0, None
    run.save, run.summary, run.monitor = lambda: None, lambda *_: "", SimpleNamespace(log=lambda text: None)

    def train_epoch(*_: object) -> dict[str, float]:
        run.epoch = 1
        return {"loss": math.inf, "grad": math.nan, "stopped": True}

    run.train_epoch = train_epoch
    monkeypatch.setattr(module, "micro_batches", lambda *_: [[0]])
    run.train_epochs(None)
    lines = (tmp_path / module.LOG).read_text().splitlines()
    assert [strict(line) for line in lines] == [{"loss": None, "grad": None, "stopped": True}]
