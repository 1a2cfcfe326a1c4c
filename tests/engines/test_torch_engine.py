"""PyTorch as an engine of any bundle, and torch.export, which torch-tensorrt reads parts with.

torch-tensorrt itself needs a GPU; a stand-in replaces it.
"""

from __future__ import annotations

import sys
import types

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from imkd_edge import Detector  # noqa: E402
from imkd_edge.bundle import PARTS, Bundle, golden_rig  # noqa: E402
from imkd_edge.bundle.half import restore_float  # noqa: E402
from imkd_edge.checks.selftest import replay  # noqa: E402
from imkd_edge.engines import torch_graph  # noqa: E402
from imkd_edge.engines.float16 import to_half  # noqa: E402
from imkd_edge.engines.torch import TorchEngine, own_pool  # noqa: E402
from imkd_edge.errors import Error  # noqa: E402


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load("tiny")


@pytest.mark.parametrize("part", PARTS)
def test_torch_export_reads_a_part_and_keeps_its_numbers(bundle: Bundle, part: str) -> None:
    graph = onnx.load(bundle.file(f"{part}.onnx")).graph
    module = torch_graph.GraphModule(graph).eval()
    torch.manual_seed(0)
    inputs = tuple(torch.rand([d.dim_value for d in item.type.tensor_type.shape.dim]) for item in graph.input)
    with torch.no_grad():
        exported = torch.export.export(module, inputs).module()(*inputs)
        expected = module(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(exported, expected, strict=True))
    assert all(value.any() for value in expected)


def test_a_part_in_float16_is_computed_in_float16_and_close(bundle: Bundle) -> None:
    """As the proof on a GPU times it."""
    model = onnx.load(bundle.file("bev.onnx"))
    restore_float(model.graph)
    rng = np.random.default_rng(0)
    inputs = {
        item.name: rng.random([d.dim_value for d in item.type.tensor_type.shape.dim], np.float32)
        for item in model.graph.input
    }
    exact, half = torch_graph.run(model, inputs), torch_graph.run(to_half(model), inputs)
    for name, value in exact.items():
        difference = ((half[name] - value) ** 2).sum() / (value**2).sum()
        assert half[name].dtype == np.float32 and 0 < difference < 1e-4, name


def tensors(bundle: Bundle, engine) -> dict[str, np.ndarray]:
    with Detector(bundle, golden_rig(bundle), device="cpu", engine=engine, threads=1) as detector:
        list(replay(bundle, detector))
        return detector.tensors()


def test_a_compiled_part_is_what_the_detector_runs(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def compile_part(part, ir, inputs):
        compiled.append((ir, [tuple(value.shape) for value in inputs]))
        return lambda *arrays: tuple(2 * value for value in part(*arrays))

    def on_the_cpu(threads: int) -> TorchEngine:
        engine = TorchEngine(threads, "torch-tensorrt")
        assert engine.name() == "torch-tensorrt" and engine._device == "cuda"
        engine._device = "cpu"
        return engine

    monkeypatch.setitem(sys.modules, "torch_tensorrt", types.SimpleNamespace(compile=compile_part))
    plain, doubled = tensors(bundle, TorchEngine), tensors(bundle, on_the_cpu)
    image = bundle.spec.image
    assert ("dynamo", [(bundle.spec.cameras, 3, image.height, image.width)]) in compiled and len(compiled) == 2
    assert np.array_equal(doubled["depth"], 2 * plain["depth"]) and plain["depth"].any()


def test_without_torch_tensorrt_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)  # as if it were not installed
    with pytest.raises(Error) as raised:
        TorchEngine(1, "torch-tensorrt")
    assert raised.value.code == "E0501" and "pip install torch-tensorrt" in raised.value.fix
    with pytest.raises(Error) as raised:
        TorchEngine(1, "tensorflow")
    assert raised.value.code == "E0501" and "torch, torch-tensorrt" in raised.value.fix


def test_a_pool_of_gpu_memory_has_its_owner_as_one_user_until_the_owners_end(monkeypatch) -> None:
    """PyTorch counts a pool's users: a beginning adds one, a release takes one, and nothing may free it at once."""
    users: dict[tuple[int, int], int] = {}

    def begin(device: int, pool: tuple[int, int]) -> None:
        users[pool] = users.get(pool, 0) + 1

    def release(device: int, pool: tuple[int, int]) -> None:
        users[pool] -= 1

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "MemPool", None)
    ended: list[tuple[int, int]] = []
    for name, stand_in in (
        ("_cuda_beginAllocateCurrentThreadToPool", begin),
        ("_cuda_endAllocateToPool", lambda device, pool: ended.append(pool)),
        ("_cuda_releasePool", release),
    ):
        assert hasattr(torch._C, name)
        monkeypatch.setattr(torch._C, name, stand_in)
    first, second = TorchEngine(), TorchEngine()
    pools = [own_pool(first), own_pool(second)]
    assert len(set(pools)) == 2 and ended == pools and users == dict.fromkeys(pools, 1)
    del first
    assert users == {pools[0]: 0, pools[1]: 1}
    del second
    assert set(users.values()) == {0}
