"""Adapts the inputs and outputs of a TensorRT network to the device's kernels before it is built.

An ONNX part has float32 tensors with axes N, C, H, W. A part that computes in float16 converts every input and output,
and the lift has to transpose the context; both cost memory traffic. `set_io` removes both. The engine reports dtype and
order of axes, and the frame loop follows them.
"""

from __future__ import annotations

from typing import Any

IO = ("auto", "onnx")  # what `set_io` makes of them; the tensors of the ONNX part
CHANNELS_LAST = "context"  # the output with axes N, H, W, C


def set_io(trt: Any, network: Any) -> None:
    """Lets a part that computes in float16 read and write float16, and transposes the context to channels last.

    Args:
        trt: the Python package, TensorRT 10.3 or later or TensorRT for RTX.
        network: a strongly typed INetworkDefinition, parsed.
    """
    readers = _readers(network)
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    half = all(_is_cast_to_half(trt, readers.get(tensor.name, [])) for tensor in inputs)
    if half:
        for tensor in inputs:
            _read_half(trt, network, tensor, readers[tensor.name])
    writers = {layer.get_output(k).name: layer for layer in _layers(network) for k in range(layer.num_outputs)}
    for tensor in [network.get_output(i) for i in range(network.num_outputs)]:
        name, output = tensor.name, tensor
        if half:
            output = _as_half(trt, network, tensor, writers[name])
        # With three equal lengths the engine's shape would not show the order of axes.
        if name == CHANNELS_LAST and len({*tuple(tensor.shape)[1:]}) > 1:
            output = _to_channels_last(trt, network, output)
        if output is not tensor:
            tensor.name = f"{name}_of_onnx"
            output.name = name
            network.unmark_output(tensor)
            network.mark_output(output)


def _layers(network: Any) -> list[Any]:
    return [network.get_layer(i) for i in range(network.num_layers)]


def _readers(network: Any) -> dict[str, list[tuple[Any, int]]]:
    """Name of a tensor -> the layers that read it, each with the index of the input."""
    readers: dict[str, list[tuple[Any, int]]] = {}
    for layer in _layers(network):
        for k in range(layer.num_inputs):
            if (tensor := layer.get_input(k)) is not None:
                readers.setdefault(tensor.name, []).append((layer, k))
    return readers


def _is_cast_to_half(trt: Any, readers: list[tuple[Any, int]]) -> bool:
    """True where every reader of a tensor is a cast to float16."""
    return bool(readers) and all(
        layer.type == trt.LayerType.CAST and layer.get_output(0).dtype == trt.float16 for layer, _ in readers
    )


def _read_half(trt: Any, network: Any, tensor: Any, readers: list[tuple[Any, int]]) -> None:
    """Replaces a float32 input by a float16 one; its casts become no-ops."""
    name, shape = tensor.name, tensor.shape
    tensor.name = f"{name}_of_onnx"
    half = network.add_input(name, trt.float16, shape)
    for layer, k in readers:
        layer.set_input(k, half)
    network.remove_tensor(tensor)


def _as_half(trt: Any, network: Any, tensor: Any, writer: Any) -> Any:
    """The float16 input of a final cast to float32; else a new cast to float16 (softmax computes in float32)."""
    if writer.type == trt.LayerType.CAST and writer.get_input(0).dtype == trt.float16:
        return writer.get_input(0)
    return network.add_cast(tensor, trt.float16).get_output(0)


def _to_channels_last(trt: Any, network: Any, tensor: Any) -> Any:
    layer = network.add_shuffle(tensor)
    layer.first_transpose = trt.Permutation([0, 2, 3, 1])
    return layer.get_output(0)
