"""Parameters and GFLOPs of a part: layers counted by hand, and the whole student against torch's counter."""

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from helpers import write_toy_clip_config
from imkd_edge.predict.cost import cost
from imkd_edge.training.config import load_config
from imkd_edge.training.export import to_onnx
from imkd_edge.training.models.student import Student


def model(op: str, data: list[int], weight: list[int], out: list[int], **attributes) -> bytes:
    value = helper.make_tensor("w", TensorProto.FLOAT, weight, [0.5] * torch.Size(weight).numel())
    inputs, outputs = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in (("x", data), ("y", out))
    )
    node = helper.make_node(op, ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph([node], "g", [inputs], [outputs], [value])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()


@pytest.mark.parametrize(
    "part, multiply_adds, parameters",
    [
        (model("Conv", [1, 3, 8, 8], [4, 3, 3, 3], [1, 4, 6, 6]), 4 * 6 * 6 * 27, 108),
        # Depthwise.
        (model("Conv", [2, 8, 8, 8], [8, 1, 3, 3], [2, 8, 8, 8], group=8, pads=[1] * 4), 2 * 8 * 64 * 9, 72),
        (model("ConvTranspose", [1, 4, 5, 5], [4, 2, 2, 2], [1, 2, 10, 10], strides=[2, 2]), 4 * 25 * 8, 32),
        (model("Gemm", [3, 5], [5, 7], [3, 7]), 105, 35),
        (model("Gemm", [5, 3], [5, 7], [3, 7], transA=1), 105, 35),
        (model("MatMul", [2, 3, 5], [5, 7], [2, 3, 7]), 210, 35),
        (model("Add", [3, 5], [5], [3, 5]), 0, 5),
    ],
)
def test_one_layer_is_counted_by_hand(part, multiply_adds, parameters):
    assert cost(part) == {"parameters": parameters, "gflops": pytest.approx(2e-9 * multiply_adds, abs=5e-5)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    settings = load_config(write_toy_clip_config(tmp_path_factory.mktemp("config") / "clip.toml"))
    torch.manual_seed(0)
    student = Student(settings.spec, settings.model).eval()
    return student, settings.spec, to_onnx(student, settings.spec)


def test_the_student_costs_what_torch_counts(exported):
    student, spec, parts = exported
    grid = spec.grid.height(), spec.grid.width()
    inputs = (
        (torch.zeros(spec.cameras, 3, spec.image.height, spec.image.width),),
        (
            torch.zeros(1, spec.context_channels + 1, *grid),
            torch.zeros(1, len(spec.radar.features), spec.radar_height(), spec.radar_width()),
            torch.zeros(1, spec.history.frames * spec.history.channels, *grid),
        ),
    )
    for network, tensors, part in zip((student.camera, student.bev), inputs, parts):
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            network(*tensors)
        result = cost(part)
        assert result["gflops"] == pytest.approx(counter.get_total_flops() * 1e-9, abs=1e-4)
        weights = sum(p.numel() for m in network.modules() if isinstance(m, nn.Conv2d) for p in m.parameters())
        assert weights < result["parameters"] < 1.1 * weights  # and batch norms, and coordinates of cells and rows


def test_the_parts_have_the_tensors_of_a_model_with_past_frames(exported):
    student, spec, (_, bev) = exported
    graph = onnx.load_from_string(bev).graph
    shapes = {x.name: [d.dim_value for d in x.type.tensor_type.shape.dim] for x in [*graph.input, *graph.output]}
    size = [spec.grid.height(), spec.grid.width()]
    assert [x.name for x in graph.input] == ["camera_bev", "radar_grid", "history"]
    assert [x.name for x in graph.output] == student.bev.outputs
    assert shapes["history"] == [1, 3 * 16, *size] and shapes["fused"] == [1, 16, *size]
    assert shapes["segmentation"] == [1, 1, *size]
    assert {node.domain for node in graph.node} <= {"", "ai.onnx"}
