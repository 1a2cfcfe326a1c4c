"""The tensors at an engine's border as the device's kernels like them best, written into a TensorRT network before it is built.

An ONNX part has float32 tensors of the axes N, C, H, W. A part that computes in float16 begins and ends in conversions, and the lift would
turn the context first: both are bytes that pass the memory for nothing. The engine reports what it has, and the frame loop follows.
"""

from __future__ import annotations

from typing import Any

IO = ("auto", "onnx")  # as described here; as the ONNX part has it
TURNED = "context"


def set_io(trt: Any, network: Any) -> None:
    """Makes a part that computes in float16 read and write float16, and puts the context's channels last.

    Args:
        trt: the Python package, TensorRT 10.3 or later or TensorRT for RTX.
        network: a strongly typed INetworkDefinition, parsed.
    """
    readers = _readers(network)
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    half = all(_is_halved(trt, readers.get(tensor.name, [])) for tensor in inputs)
    if half:
        for tensor in inputs:
            _read_half(trt, network, tensor, readers[tensor.name])
    writers = {layer.get_output(k).name: layer for layer in _layers(network) for k in range(layer.num_outputs)}
    for tensor in [network.get_output(i) for i in range(network.num_outputs)]:
        name, made = tensor.name, tensor
        if half:
            made = _as_half(trt, network, tensor, writers[name])
        if name == TURNED and len({*tuple(tensor.shape)[1:]}) > 1:  # a cube's shape would not tell
            made = _with_channels_last(trt, network, made)
        if made is not tensor:
            tensor.name = f"{name}_of_onnx"
            made.name = name
            network.unmark_output(tensor)
            network.mark_output(made)


def _layers(network: Any) -> list[Any]:
    return [network.get_layer(i) for i in range(network.num_layers)]


def _readers(network: Any) -> dict[str, list[tuple[Any, int]]]:
    readers: dict[str, list[tuple[Any, int]]] = {}
    for layer in _layers(network):
        for k in range(layer.num_inputs):
            if (tensor := layer.get_input(k)) is not None:
                readers.setdefault(tensor.name, []).append((layer, k))
    return readers


def _is_halved(trt: Any, readers: list[tuple[Any, int]]) -> bool:
    """Whether all that reads a tensor first makes it float16."""
    return bool(readers) and all(
        layer.type == trt.LayerType.CAST and layer.get_output(0).dtype == trt.float16 for layer, _ in readers
    )


def _read_half(trt: Any, network: Any, tensor: Any, readers: list[tuple[Any, int]]) -> None:
    """A float16 input in the place of a float32 one; its casts are left with nothing to do."""
    name, shape = tensor.name, tensor.shape
    tensor.name = f"{name}_of_onnx"
    made = network.add_input(name, trt.float16, shape)
    for layer, k in readers:
        layer.set_input(k, made)
    network.remove_tensor(tensor)


def _as_half(trt: Any, network: Any, tensor: Any, writer: Any) -> Any:
    """What a cast to float32 was made from, else a cast (a softmax computes in float32)."""
    if writer.type == trt.LayerType.CAST and writer.get_input(0).dtype == trt.float16:
        return writer.get_input(0)
    return network.add_cast(tensor, trt.float16).get_output(0)


def _with_channels_last(trt: Any, network: Any, tensor: Any) -> Any:
    layer = network.add_shuffle(tensor)
    layer.first_transpose = trt.Permutation([0, 2, 3, 1])
    return layer.get_output(0)
