"""Weights of a trained student in another one: read back from a bundle, converted, and copied by their meaning."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from helpers import bev_onnx, camera_onnx, random_spec, write_random_bundle
from imkd_edge.bundle import Bundle, write_bundle
from imkd_edge.errors import Error
from imkd_edge.training.channel_labels import GATE, RADAR
from imkd_edge.training.config import Config, from_dict, load_config
from imkd_edge.training.models.blocks import batch_norm, conv_bn
from imkd_edge.training.models.student import Student
from imkd_edge.training.source_weights import SourceWeights, read_source
from imkd_edge.training.statistics import measure_statistics
from imkd_edge.training.transfer import batch_norms, transfer

SHIPPED = ["tiny", "tiny-t4", "astyx-lite", "astyx-taught"]


def config(name: str = "tiny", **spec) -> Config:
    """A shipped config with other values of its spec: {"head": {"classes": [...]}} replaces keys of a table."""
    tree = load_config(name).to_dict()
    tree["model"] |= {"pretrained": False}
    for key, value in spec.items():
        tree["spec"][key] = {**tree["spec"][key], **value} if isinstance(value, dict) else value
    classes = {c["name"]: c["name"] for c in tree["spec"]["head"]["classes"]}
    tree["data"]["classes"] = classes
    return from_dict(tree, "test")


def student(settings: Config, seed: int = 0) -> Student:
    torch.manual_seed(seed)
    network = Student(settings.spec, settings.model)
    for module in network.modules():  # as after a training
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias, std=0.2)
    return network.eval()


def weights(settings: Config, network: Student) -> SourceWeights:
    return SourceWeights("source", settings.spec, settings.model.backbone, network.state_dict())


def run_part(bundle: Bundle, part: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(bundle.file(f"{part}.onnx")), providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs)))


def random_inputs(bundle: Bundle, part: str) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(bundle.file(f"{part}.onnx")), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    return {i.name: random.normal(size=i.shape).astype(np.float32) for i in session.get_inputs()}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_student_with_the_weights_of_a_shipped_bundle_computes_what_onnx_runtime_does(name: str) -> None:
    bundle, settings = Bundle.load(name), config(name)
    network = Student(bundle.spec, settings.model).eval()
    result = transfer(network, settings.model, read_source(name))
    assert not result.left and not result.partly
    assert result.weights == result.of == sum(p.numel() for p in network.parameters())
    with torch.no_grad():
        for part in ("camera", "bev"):
            inputs = random_inputs(bundle, part)
            outputs = run_part(bundle, part, inputs)
            values = getattr(network, part)(*(torch.from_numpy(x) for x in inputs.values()))
            for (tensor, expected), ours in zip(outputs.items(), values):
                # The bundle stores the sum over coordinates in 16 bits: 2^-11 of its values.
                scale = np.abs(expected).max()
                assert np.abs(ours.numpy() - expected).max() < 1e-3 * max(1, scale), (part, tensor)


def test_a_batch_norm_that_was_folded_trains_like_the_one_before_folding() -> None:
    torch.manual_seed(0)
    original = nn.Sequential(conv_bn(3, 8), nn.Sequential(nn.Conv2d(8, 4, 1, bias=False), batch_norm(4)))
    x = 2 + 3 * torch.randn(16, 3, 12, 12)
    norms = [original[0][1], original[1][1]]
    for norm in norms:
        nn.init.normal_(norm.weight, 1.0, 0.3)
        nn.init.normal_(norm.bias, std=0.5)
        norm.momentum = None  # the statistics are those of the batch
    original.train()(x)
    trained = original.train()(x).detach()

    folded = nn.Sequential(conv_bn(3, 8), nn.Sequential(nn.Conv2d(8, 4, 1, bias=False), batch_norm(4)))
    for ours, theirs in zip(folded, original):  # W' = W g / s, b' = b - g m / s
        factor = theirs[1].weight / (theirs[1].running_var + theirs[1].eps).sqrt()
        ours[0].weight.data = (theirs[0].weight * factor[:, None, None, None]).detach()
        ours[1].bias.data = (theirs[1].bias - factor * theirs[1].running_mean).detach()
        ours[1].running_var.fill_(1 - theirs[1].eps)
    before = folded.eval()(x).detach()
    torch.testing.assert_close(before, original.eval()(x), rtol=1e-4, atol=1e-4)
    far = (folded.train()(x) - trained).abs().mean()
    for norm in (folded[0][1], folded[1][1]):  # undo what the training step changed
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)

    measure_statistics(folded, ["0.1", "1.1"], [x[:8], x[8:]])
    torch.testing.assert_close(folded.eval()(x), before, rtol=1e-4, atol=1e-4)
    near = (folded.train()(x) - trained).abs().mean()
    assert near < 1e-3 and far > 0.1


def test_every_convolution_without_a_bias_has_its_batch_norm() -> None:
    for name in ("tiny", "astyx-lite", "r18-nuscenes"):
        settings = load_config(name)
        network = Student(settings.spec, replace(settings.model, pretrained=False, weights=""))
        convolutions = {n for n, m in network.named_modules() if isinstance(m, nn.Conv2d) and m.bias is None}
        norms = {n for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
        pairs = batch_norms(network)
        assert set(pairs) == convolutions and set(pairs.values()) == norms and len(norms) == len(pairs)


def test_classes_are_taken_by_name_and_groups_by_their_classes() -> None:
    source = config(
        head={
            "classes": [
                {"name": "truck", "group": 0, "nms_radius": 3.0, "exclusive": True},
                {"name": "pedestrian", "group": 1, "nms_radius": 0.5, "exclusive": True},
                {"name": "car", "group": 0, "nms_radius": 2.0, "exclusive": True},
            ]
        }
    )
    other = config(
        head={
            "classes": [
                {"name": "pedestrian", "group": 0, "nms_radius": 0.5, "exclusive": True},
                {"name": "forklift", "group": 1, "nms_radius": 2.0, "exclusive": True},
                {"name": "car", "group": 1, "nms_radius": 2.0, "exclusive": True},
            ]
        }
    )
    theirs, ours = student(source), student(other, seed=1)
    new = ours.bev.heatmap[1].weight[1].clone()
    result = transfer(ours, other.model, weights(source, theirs))
    heads = ours.bev.heatmap[1], theirs.bev.heatmap[1]
    for tensor in ("weight", "bias"):
        mine, other_head = (getattr(head, tensor) for head in heads)
        assert torch.equal(mine[0], other_head[1]) and torch.equal(mine[2], other_head[2])
    assert torch.equal(heads[0].weight[1], new)
    boxes = ours.bev.box[1].weight, theirs.bev.box[1].weight
    assert torch.equal(boxes[0][:10], boxes[1][10:]) and torch.equal(boxes[0][10:], boxes[1][:10])
    assert result.partly["bev.heatmap.1.weight"] == {"taken": ["pedestrian", "car"], "new": ["forklift"]}
    assert any("new: forklift" in line for line in result.lines())


def test_another_number_of_cameras_changes_no_weight() -> None:
    source, other = config(), config(cameras=3)
    theirs, ours = student(source), student(other, seed=1)
    result = transfer(ours, other.model, weights(source, theirs))
    assert not result.left and not result.partly and not result.notes
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


def test_radar_statistics_are_taken_by_name_and_a_return_means_the_same_in_another_scale() -> None:
    source = config()
    scales = {"log_count": 1.0, "intensity_max": 0.05, "intensity_mean": 0.05, "velocity_x": 0.2, "age_min": 2.0}
    changed = {"velocity_x": 0.1, "intensity_max": 0.025, "log_count": 1.0, "z_mean": 0.25}
    features = [{"statistic": name, "offset": 0.0, "scale": scale} for name, scale in changed.items()]
    other = config(radar={"features": features})
    theirs, ours = student(source), student(other, seed=1)
    result = transfer(ours, other.model, weights(source, theirs))

    value = {"velocity_x": -7.0, "intensity_max": 12.0, "log_count": 1.5}  # of one return; what is not named is 0
    names = [f.statistic for f in source.spec.radar.features]
    grid = torch.zeros(1, len(names), 8, 8)
    for name, number in value.items():
        grid[0, names.index(name), 4, 4] = number * scales[name]
    mine = torch.zeros(1, len(changed), 8, 8)
    for index, (name, scale) in enumerate(changed.items()):
        mine[0, index, 4, 4] = value.get(name, 0.0) * scale
    torch.testing.assert_close(ours.bev.radar(mine), theirs.bev.radar(grid), rtol=1e-5, atol=1e-6)
    assert result.partly[RADAR] == {"taken": ["velocity_x", "intensity_max", "log_count"], "new": ["z_mean"]}
    gates = (net.bev.radar_gate.net[0][0].weight for net in (ours, theirs))
    mine_gate, their_gate = gates  # inputs: 16 features, log_count, intensity_max (, intensity_mean)
    torch.testing.assert_close(mine_gate[:, 17], their_gate[:, 17] * 2)
    assert GATE in result.taken


def test_an_offset_that_differs_is_named() -> None:
    source, features = config(), [{"statistic": "log_count", "offset": 1.0, "scale": 1.0}]
    other = config(radar={"features": features})
    result = transfer(student(other, 1), other.model, weights(source, student(source)))
    assert any("log_count has the offset 1 instead of 0" in note for note in result.notes)


def test_the_embedding_of_a_position_is_the_same_function_of_metres_on_another_grid() -> None:
    source = config()
    other = config(grid={"x_min": -12.8, "x_max": 38.4, "y_min": -25.6, "y_max": 25.6})
    theirs, ours = student(source), student(other, seed=1)
    transfer(ours, other.model, weights(source, theirs))
    maps = [net.bev.position_weight(net.bev.positions)[0].detach() for net in (theirs, ours)]
    # The cell of x = 10.0, y = -5.2: (10 + 51.2) / 0.8 = 76.5, (-5.2 + 51.2) / 0.8 = 57.5; there 28.5 and 25.5.
    torch.testing.assert_close(maps[1][:, 25, 28], maps[0][:, 57, 76], rtol=1e-4, atol=1e-5)


def test_lateral_convolutions_are_taken_by_their_stride() -> None:
    source, other = config(), config(image={"stride": 16})
    theirs, ours = student(source), student(other, seed=1)
    result = transfer(ours, other.model, weights(source, theirs))
    for index in (0, 1):  # strides 16 and 32
        assert torch.equal(ours.camera.lateral[index][0].weight, theirs.camera.lateral[index + 1][0].weight)
    assert "camera.lateral.1.0.weight" in result.taken
    back = student(source, seed=2)
    first = back.camera.lateral[0][0].weight.clone()
    result = transfer(back, source.model, weights(other, theirs := student(other)))
    assert torch.equal(back.camera.lateral[0][0].weight, first) and "camera.lateral.0.0.weight" in result.left
    assert torch.equal(back.camera.lateral[2][1].running_var, theirs.camera.lateral[1][1].running_var)


def test_depth_bins_of_other_depths_are_left_and_the_context_is_taken() -> None:
    source, other = config(), config(depth={"max": 80.0})
    theirs, ours = student(source), student(other, seed=1)
    new = ours.camera.out.weight[:32].clone()
    transfer(ours, other.model, weights(source, theirs))
    assert torch.equal(ours.camera.out.weight[:32], new)
    assert torch.equal(ours.camera.out.weight[32:], theirs.camera.out.weight[32:])


def test_past_maps_are_taken_by_their_age() -> None:
    source = config("tiny-t4")
    other = config("tiny-t4", history={"frames": 2, "interval": 1.0})  # 0, 1 and 2 s ago; the source has 0 to 1.5 s
    theirs, ours = student(source), student(other, seed=1)
    new = ours.bev.remember[0].weight[:, 64:].clone()
    transfer(ours, other.model, weights(source, theirs))
    mine, remember = ours.bev.remember[0].weight, theirs.bev.remember[0].weight
    assert torch.equal(mine[:, :32], remember[:, :32]) and torch.equal(mine[:, 32:64], remember[:, 64:96])
    assert torch.equal(mine[:, 64:], new)


def test_a_model_without_past_leaves_what_joins_it_and_the_other_way_round() -> None:
    with_past, without = config("tiny-t4"), config("tiny-t4", history={"frames": 0, "channels": 0})
    result = transfer(student(with_past, 1), with_past.model, weights(without, student(without)))
    assert result.left["bev.remember.0.weight"] == "the source has no such layer"
    result = transfer(student(without, 1), without.model, weights(with_past, student(with_past)))
    assert not result.left


def test_a_batch_norm_is_left_with_its_convolution() -> None:
    source = config()
    other = replace(config(), model=replace(config().model, camera_channels=48))
    result = transfer(student(other, 1), other.model, weights(source, student(source)))
    lateral = {name for name in result.left if name.startswith("camera.lateral.0.")}
    assert {"camera.lateral.0.0.weight", "camera.lateral.0.1.running_mean"} <= lateral
    assert "32x48x1x1" in result.left["camera.lateral.0.0.weight"]


def test_another_backbone_is_left() -> None:
    source, other = config(), config("astyx-lite")
    result = transfer(student(other, 1), other.model, weights(source, student(source)))
    assert result.left["camera.backbone.net.conv_stem.weight"].startswith("the source's backbone is small")
    assert "bev.trunk.fine.first.0.weight" in result.taken


def test_a_bundle_of_other_networks_is_refused(tmp_path) -> None:
    bundle = write_random_bundle(tmp_path / "random.imkd")
    with pytest.raises(Error, match="no weight of it fits") as error:
        transfer(student(config()), config().model, read_source(str(bundle)))
    assert error.value.code == "E0602"


def test_a_quantized_bundle_is_refused(tmp_path) -> None:
    spec = random_spec()
    model = onnx.load_from_string(camera_onnx(spec))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.1), "step"))
    model.graph.node[0].input[0] = "values"
    model.graph.node.insert(0, onnx.helper.make_node("QuantizeLinear", ["images", "step"], ["integers"]))
    model.graph.node.insert(1, onnx.helper.make_node("DequantizeLinear", ["integers", "step"], ["values"]))
    bundle = write_bundle(tmp_path / "q.imkd", spec, model.SerializeToString(), bev_onnx(spec), {}, {}, {})
    with pytest.raises(Error, match="a quantized bundle") as error:
        read_source(str(bundle.path))
    assert error.value.code == "E0602"


def test_the_number_of_parameters_is_what_the_report_counts() -> None:
    source, other = config(), config(cameras=2)
    result = transfer(student(other), other.model, weights(source, student(source)))
    assert result.lines()[0] == f"starts from source: {result.of:,} of {result.of:,} weights"
    assert json.loads(json.dumps(result.to_dict()))["weights"] == result.of
