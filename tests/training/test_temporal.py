"""Past frames: the right ones, in the same changed world, warped by the runtime's op, without gradient."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helpers import killed_after_the_first_save, without_limits, write_toy_clip_config
from imkd_edge import ops
from imkd_edge.errors import Error
from imkd_edge.options import TrainOptions
from imkd_edge.sources import open_source
from imkd_edge.sources.timeline import Timeline
from imkd_edge.spec import HistorySpec
from imkd_edge.training import augment
from imkd_edge.training.checkpoint import load_checkpoint, load_student
from imkd_edge.training.config import load_config
from imkd_edge.training.data import FrameDataset, collate
from imkd_edge.training.evaluate import CheckpointDetector
from imkd_edge.training.losses import detection_losses
from imkd_edge.training.models.student import Student
from imkd_edge.training.program import train
from imkd_edge.training.temporal import warp_history

MS = 1_000_000
OPTIONS = {"scenes": 2, "frames_per_scene": 4}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return load_config(write_toy_clip_config(tmp_path_factory.mktemp("config") / "clip.toml"))


@pytest.fixture(scope="module")
def source():
    return open_source("synth", **OPTIONS)


# ---- which samples ----
def timeline(*moments: tuple[str, int], frames: int = 3) -> Timeline:
    """Samples "0", "1", ... at (scene, ms)."""
    table = {str(i): (scene, ms * MS) for i, (scene, ms) in enumerate(moments)}
    source = SimpleNamespace(names=list(table), moment=table.get)
    return Timeline(source, HistorySpec(frames=frames, interval=0.5, channels=4))


def test_the_slots_hold_the_preceding_key_frames_of_the_scene():
    frames = timeline(*(("a", 500 * i) for i in range(5)))
    assert frames.past("4") == ["3", "2", "1"]
    assert frames.past("1") == ["0", None, None]
    assert frames.past("0") == [None, None, None]


def test_a_new_scene_has_no_past():
    assert timeline(("a", 0), ("a", 500), ("b", 1000), ("b", 1500)).past("3") == ["2", None, None]


def test_a_slot_holds_a_frame_within_a_quarter_of_the_interval():
    assert timeline(("a", 0), ("a", 375), ("a", 1000)).past("2") == ["1", "0", None]
    assert timeline(("a", 0), ("a", 374), ("a", 1000)).past("2") == [None, "0", None]
    assert timeline(("a", 124), ("a", 626), ("a", 1000)).past("2") == [None, "0", None]


def test_a_gap_gives_an_empty_slot():
    assert timeline(("a", 0), ("a", 500), ("a", 1500)).past("2") == [None, "1", "0"]


def test_the_nearest_of_many_frames_is_taken():
    # 12.5 Hz: 500 ms is nearest to 6 steps (480), 1000 to 12 (960) or 13 (1040).
    frames = timeline(*(("a", 80 * i) for i in range(20)))
    assert frames.past("19") == ["13", "7", "0"]


def test_a_source_without_moments_decodes_the_sample():
    samples = {str(i): SimpleNamespace(scene="a", timestamp_ns=500 * i * MS) for i in range(3)}

    class Plain(dict):
        names = list(samples)

    assert Timeline(Plain(samples), HistorySpec(frames=2, interval=0.5, channels=4)).past("2") == ["1", "0"]


@pytest.mark.parametrize("name", ["s000-f000", "s001-f003"])
def test_the_synthetic_source_gives_the_moments_of_its_samples(source, name):
    assert source.moment(name) == (source[name].scene, source[name].timestamp_ns)


# ---- the same changed world ----
@pytest.mark.parametrize("flip, angle, scale", [(False, 0.0, 1.0), (True, 0.3, 1.05), (True, 3.3, 0.95)])
def test_a_static_object_has_one_position_in_past_and_present(config, source, flip, angle, scale):
    dataset = FrameDataset(source, source.names, config, 0)
    view = augment.View(augment.ImageChange(flip=flip), angle, scale)
    names = source.names[1], source.names[3]
    then, now = (dataset.changed(source[name], view, np.random.default_rng(0)) for name in names)
    T_then_now = now.motion().since(then.motion())
    tracks = [source.instances(name) for name in names]
    checked = 0
    for i, track in enumerate(tracks[1]):
        if track in tracks[0] and np.hypot(*now.truth.boxes[i, 7:9]) < 1e-6:
            moved = T_then_now @ np.append(now.truth.boxes[i, :3], 1)
            np.testing.assert_allclose(moved[:3], then.truth.boxes[tracks[0].index(track), :3], atol=1e-6)
            checked += 1
    assert checked > 3 and np.linalg.norm(T_then_now[:2, 3]) > 1


def test_frames_of_unknown_motion_have_none(source):
    still = dataclasses.replace(source[source.names[1]], ego=None, radar=[])
    assert still.motion().since(still.motion()) is None
    assert source[source.names[1]].motion().since(source[source.names[0]].motion()) is not None


def test_an_example_holds_its_past_in_slots(config, source):
    dataset = FrameDataset(source, source.names, config, 0, train=False)
    past = dataset[2]["past"]
    assert [slot for slot, *_ in past] == [0, 1]
    for slot, T_then_now, inputs in past:
        then, now = source[source.names[1 - slot]], source[source.names[2]]
        expected = np.linalg.inv(then.ego.T_world_ego) @ now.ego.T_world_ego
        np.testing.assert_allclose(T_then_now, expected, atol=1e-12)
        single = dataset[1 - slot]
        assert all(torch.equal(value, single[key]) for key, value in inputs.items())
    assert dataset[4]["past"] == []  # the first of its scene


def test_past_frames_are_dropped_with_the_probability_of_the_config(config, source, monkeypatch):
    monkeypatch.setattr("imkd_edge.training.data.network_inputs", lambda *_: {"present": np.ones(1)})  # slow

    def slots_per_epoch(share, epochs=12):
        changed = dataclasses.replace(config, augment=dataclasses.replace(config.augment, drop_past=share))
        dataset = FrameDataset(source, source.names, changed, 0)
        view, slots = augment.View(augment.ImageChange(), 0.0, 1.0), []
        for dataset.epoch in range(epochs):
            slots.append([slot for slot, *_ in dataset.past(3, source[source.names[3]], view)])
        return slots

    assert all(slots == [0, 1, 2] for slots in slots_per_epoch(0.0, 3))
    dropped = slots_per_epoch(1.0)
    assert {len(slots) for slots in dropped} == {0, 1, 2}
    assert all(slots == list(range(len(slots))) for slots in dropped)
    assert 1 < sum(len(slots) == 3 for slots in slots_per_epoch(0.5)) < 11


# ---- the history ----
def test_maps_go_to_their_slots_and_the_rest_is_zero(config):
    spec = config.spec
    grid, channels = spec.grid, spec.history.channels
    values = np.random.default_rng(0).normal(size=(2, channels, grid.height(), grid.width()))
    maps = torch.from_numpy(values.astype(np.float32))
    shift = np.eye(4)
    shift[0, 3] = 2 * grid.cell  # the present ego is two cells ahead of the past one
    out = warp_history(spec, 2, maps, torch.tensor([[1, 2], [0, 0]]), torch.from_numpy(np.stack([np.eye(4), shift])))
    out = out.view(2, spec.history.frames, channels, grid.height(), grid.width())
    assert torch.equal(out[1, 2], maps[0])
    assert torch.equal(out[0, 0, :, :, :-2], maps[1, :, :, 2:]) and not out[0, 0, :, :, -2:].any()
    assert not out[0, 1:].any() and not out[1, :2].any()


def batch_of(config, source, *indices):
    dataset = FrameDataset(source, source.names, config, 0, train=False)
    return collate([dataset[i] for i in indices], config.spec)


def test_the_student_encodes_the_past_as_the_device_does(config, source):
    torch.manual_seed(0)
    student = Student(config.spec, config.model).train()
    batch = batch_of(config, source, 4, 2)  # without a past, and with two frames
    assert batch["past_slot"].tolist() == [[1, 0], [1, 1]]
    before = {key: value.clone() for key, value in student.state_dict().items()}
    history = student.history(batch)
    assert student.training and student.camera.training and not history.requires_grad
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())
    student.eval()
    now = source[source.names[2]].ego.T_world_ego
    for slot, index in enumerate((1, 0)):
        with torch.no_grad():
            fused = student.encode(batch_of(config, source, index))["f_fused"][0].numpy()
        T_then_now = np.linalg.inv(source[source.names[index]].ego.T_world_ego) @ now
        expected = ops.warp_bev(config.spec.grid, fused, T_then_now)
        channels = config.spec.history.channels
        np.testing.assert_allclose(history[1, slot * channels : (slot + 1) * channels].numpy(), expected, atol=1e-5)
    assert not history[0].any() and not history[1, 2 * channels :].any()


def test_the_loss_reaches_every_weight_once_there_is_a_past(config, source):
    torch.manual_seed(0)
    student = Student(config.spec, config.model).train()
    batch = batch_of(config, source, 3, 7)
    terms = detection_losses(student(batch), batch, config.train, config.spec.grid.cell)
    assert {"segmentation", "heatmap", "box", "depth"} < set(terms)
    terms["total"].backward()
    without = [name for name, p in student.named_parameters() if p.grad is None or not p.grad.any()]
    # A gate's last weights start at 0, so that its earlier weights have no gradient.
    assert [name for name in without if "gate.net" not in name] == []


def test_a_model_without_history_has_no_weights_for_it():
    config = load_config("tiny")
    names = [name for name, _ in Student(config.spec, config.model).named_parameters()]
    assert not [name for name in names if "remember" in name or "segmentation" in name]


# ---- training and evaluation ----
@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("clips")
    train(write_toy_clip_config(out / "clip.toml"), TrainOptions(out=out, seed=3, epochs=2))
    return out


def test_a_resumed_run_on_clips_is_bit_equal(folder, tmp_path):
    with killed_after_the_first_save():
        train(folder / "clip.toml", TrainOptions(out=tmp_path, seed=3, epochs=2))
    train(folder / "clip.toml", TrainOptions(out=tmp_path, seed=3, epochs=2, resume=True))
    ours, theirs = load_checkpoint(tmp_path / "checkpoint.pt"), load_checkpoint(folder / "checkpoint.pt")
    for part in ("trained", "ema"):
        for key, value in theirs[part].items():
            assert torch.equal(ours[part][key], value), f"{part} {key}"


def test_a_checkpoint_is_evaluated_with_its_past(folder, source):
    student, settings, _ = load_student(folder / "checkpoint.pt")
    detect = CheckpointDetector(folder / "checkpoint.pt", 0.001, source)
    without_limits(detect.decode_spec)
    for index in (0, 1, 3, 2):  # 2 needs cached frames, and comes out of order
        boxes, scores, labels, logits = detect(source[source.names[index]])
        with torch.no_grad():
            out = student(batch_of(settings, source, index))
        decoded = ops.decode(detect.decode_spec, out["heatmap"][0].numpy(), out["box"][0].numpy())
        np.testing.assert_allclose(scores, decoded[1], atol=1e-6)
        assert logits.shape == (200, 200) and len(boxes) == len(labels) == len(scores) > 0


def test_a_model_with_history_needs_the_source(folder, source):
    with pytest.raises(Error, match="past frames") as error:
        CheckpointDetector(folder / "checkpoint.pt", 0.001)(source[source.names[0]])
    assert error.value.code == "E0604"
