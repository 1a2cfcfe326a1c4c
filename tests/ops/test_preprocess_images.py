"""Resize, crop and normalisation in one pass."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imkd_edge.errors import Error
from imkd_edge.ops import ImageCrop, image_crop, preprocess_images, quantize_images
from imkd_edge.spec import ImageSpec

TOLERANCE = 2e-5  # normalised units: float32 against float64


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def reference(image: np.ndarray, crop: ImageCrop, spec: ImageSpec) -> np.ndarray:
    """float64, straight from the definition: input pixel u sits at raw pixel (u + 0.5 + left) / scale - 0.5."""

    def taps(count: int, offset: float, size: int):
        u = np.clip((np.arange(count) + 0.5 + offset) / crop.scale - 0.5, 0, size - 1)
        low = np.floor(u).astype(int)
        return low, np.minimum(low + 1, size - 1), u - low

    y0, y1, wy = taps(spec.height, crop.top, image.shape[0])
    x0, x1, wx = taps(spec.width, crop.left, image.shape[1])
    pixels = image.astype(np.float64)
    rows = pixels[y0] * (1 - wy)[:, None, None] + pixels[y1] * wy[:, None, None]
    out = rows[:, x0] * (1 - wx)[:, None] + rows[:, x1] * wx[:, None]
    return ((out - spec.mean) / spec.std).transpose(2, 0, 1)


SIZES = [(160, 90), (200, 130), (64, 48), (333, 211), (48, 200), (3000, 60), (2, 2), (1, 7), (9, 1), (1, 1)]


@pytest.mark.parametrize("anchor", [0.0, 0.35, 1.0])
@pytest.mark.parametrize("size", SIZES)
def test_equals_the_definition_for_any_raw_size(size: tuple[int, int], anchor: float) -> None:
    spec = ImageSpec(width=96, height=64, stride=16, anchor=anchor)
    image = noise(*size)
    crop = image_crop(spec, *size)
    assert np.abs(preprocess_images([image], [crop], spec)[0] - reference(image, crop, spec)).max() < TOLERANCE


@pytest.mark.parametrize(("width", "height"), [(16, 16), (272, 16), (528, 32), (16, 528), (704, 256)])
def test_equals_the_definition_for_any_network_size(width: int, height: int) -> None:
    spec = ImageSpec(width=width, height=height, stride=16)
    image = noise(500, 300)
    crop = image_crop(spec, 500, 300)
    assert np.abs(preprocess_images([image], [crop], spec)[0] - reference(image, crop, spec)).max() < TOLERANCE


LAYOUTS = {
    "dense": lambda a: a,
    "BGR as RGB": lambda a: a[..., ::-1],
    "upside down": lambda a: a[::-1],
    "mirrored": lambda a: a[:, ::-1],
    "every other pixel": lambda a: a[::2, ::2],
    "a window of a larger image": lambda a: a[5:-7, 11:-3],
    "columns first": lambda a: np.asfortranarray(a),
    "channels first": lambda a: np.ascontiguousarray(a.transpose(2, 0, 1)).transpose(1, 2, 0),
    "four bytes per pixel": lambda a: np.dstack([a, a[..., :1]])[..., :3],
    "all at once": lambda a: a[::-2, ::-3, ::-1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout_gives_what_a_dense_copy_gives(layout: str) -> None:
    spec = ImageSpec(width=96, height=64, stride=16)
    view = LAYOUTS[layout](noise(240, 150))
    crop = image_crop(spec, view.shape[1], view.shape[0])
    dense = preprocess_images([np.ascontiguousarray(view)], [crop], spec)
    assert preprocess_images([view], [crop], spec).tobytes() == dense.tobytes()
    assert np.abs(dense[0] - reference(view, crop, spec)).max() < TOLERANCE


@given(
    st.integers(1, 120),
    st.integers(1, 120),
    st.floats(0.05, 6),
    st.floats(-40, 200),
    st.floats(-40, 200),
    st.integers(0, 99),
)
@settings(derandomize=True, max_examples=60, deadline=None)
def test_any_crop_follows_the_definition(
    width: int, height: int, scale: float, left: float, top: float, seed: int
) -> None:
    spec = ImageSpec(width=48, height=32, stride=16)
    image, crop = noise(width, height, seed), ImageCrop(scale, left, top)
    assert np.abs(preprocess_images([image], [crop], spec)[0] - reference(image, crop, spec)).max() < 2e-4


@pytest.mark.parametrize(
    ("raw", "network", "anchor"),
    [
        ((1600, 900), (704, 256), 1.0),
        ((1600, 900), (704, 256), 0.0),
        ((1024, 320), (512, 144), 1.0),
        ((640, 360), (256, 96), 0.5),
        ((640, 480), (320, 240), 0.5),
        ((320, 240), (640, 480), 0.5),
        ((2048, 618), (640, 192), 0.0),
    ],
)
def test_is_within_a_grey_level_of_opencv(raw: tuple[int, int], network: tuple[int, int], anchor: float) -> None:
    (W, H), (w, h) = raw, network
    spec = ImageSpec(width=w, height=h, stride=16, anchor=anchor)
    image = cv2.GaussianBlur(noise(W, H), (0, 0), 1.5)
    image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)
    crop = image_crop(spec, W, H)
    scale = max(w / W, h / H)
    resized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    top, left = round((H * scale - h) * anchor), round((W * scale - w) / 2)
    expected = resized[top : top + h, left : left + w]
    grey = preprocess_images([image], [crop], spec)[0].transpose(1, 2, 0) * spec.std + spec.mean
    assert np.abs(grey - expected.astype(float)).max() <= 1.0


@pytest.mark.parametrize("size", [(192, 128), (48, 32), (96, 64), (300, 200)])
def test_equals_torch_interpolate_without_a_crop(size: tuple[int, int]) -> None:
    spec = ImageSpec(width=96, height=64, stride=16, mean=(0, 0, 0), std=(1, 1, 1))
    image = noise(*size)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    expected = torch.nn.functional.interpolate(tensor, (64, 96), mode="bilinear", align_corners=False)[0].numpy()
    assert np.abs(preprocess_images([image], [image_crop(spec, *size)], spec)[0] - expected).max() < 1e-4 * 255


def test_an_absent_camera_gives_zeros_and_leaves_the_others_alone() -> None:
    spec = ImageSpec(width=96, height=64, stride=16)
    image = noise(200, 120)
    crop = image_crop(spec, 200, 120)
    out = preprocess_images([None, image, None], [crop] * 3, spec)
    assert not out[0].any() and not out[2].any()
    assert out[1].tobytes() == preprocess_images([image], [crop], spec)[0].tobytes()


def test_a_grey_image_stays_grey_and_is_normalised() -> None:
    spec = ImageSpec(width=96, height=64, stride=16, mean=(10, 20, 30), std=(2, 4, 8))
    out = preprocess_images([np.full((50, 70, 3), 100, np.uint8)], [image_crop(spec, 70, 50)], spec)[0]
    assert np.abs(out - np.array([45.0, 20.0, 8.75])[:, None, None]).max() < 1e-5


@pytest.mark.parametrize("anchor", [0.0, 0.5, 1.0])
def test_the_crop_covers_the_input_and_is_anchored(anchor: float) -> None:
    crop = image_crop(ImageSpec(width=704, height=256, stride=16, anchor=anchor), 1600, 900)
    assert (crop.scale, crop.left) == (0.44, 0.0)
    assert crop.top == pytest.approx(140 * anchor)  # 900 * 0.44 - 256
    tall = image_crop(ImageSpec(width=96, height=64, stride=16, anchor=anchor), 640, 64)
    assert (tall.scale, tall.left, tall.top) == (1.0, 272.0, 0.0)


# ---- NV12 ----
def test_planes_on_the_gpu_are_refused_with_a_cure_that_works() -> None:
    """numpy.asarray alone fails for them."""
    on_gpu = type(
        "OnGpu",
        (),
        {"__cuda_array_interface__": {"shape": (4, 6), "typestr": "|u1", "data": (16, False), "version": 3}},
    )()
    with pytest.raises(Error) as raised:
        preprocess_images(
            [(on_gpu, np.zeros((2, 3, 2), np.uint8))], [ImageCrop()], ImageSpec(width=16, height=16, stride=16)
        )
    assert raised.value.code == "E0201" and "copy to the host first" in raised.value.fix


MATRICES = {"bt601": (0.299, 0.114, 219, 224, 16), "bt601_full": (0.299, 0.114, 255, 255, 0)}
MATRICES |= {"bt709": (0.2126, 0.0722, 219, 224, 16), "bt709_full": (0.2126, 0.0722, 255, 255, 0)}


def planes(width: int, height: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (height, width), dtype=np.uint8), random.integers(
        0, 256, (height // 2, width // 2, 2), dtype=np.uint8
    )


def rgb_of(y: np.ndarray, uv: np.ndarray, matrix: str = "bt601") -> np.ndarray:
    """float64, the inverse of ITU-R BT.601-7 / BT.709-6.

    Y = Kr R + Kg G + Kb B, Cb = (B - Y) / 2(1 - Kb), Cr = (R - Y) / 2(1 - Kr).
    """
    kr, kb, luma, chroma, black = MATRICES[matrix]
    Y = (y.astype(np.float64) - black) / luma
    Cb, Cr = (np.repeat(np.repeat((uv[..., i].astype(np.float64) - 128) / chroma, 2, 0), 2, 1) for i in (0, 1))
    R, B = Y + 2 * (1 - kr) * Cr, Y + 2 * (1 - kb) * Cb
    G = (Y - kr * R - kb * B) / (1 - kr - kb)
    return np.floor(np.clip(255 * np.stack([R, G, B], axis=-1), 0, 255) + 0.5).astype(np.uint8)


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("size", [(160, 90), (200, 130), (2, 2), (3000, 60), (48, 200)])
def test_nv12_is_as_if_it_had_been_converted_first(size: tuple[int, int], matrix: str) -> None:
    spec = ImageSpec(width=96, height=64, stride=16)
    y, uv = planes(*size)
    crop = image_crop(spec, *size)
    result = preprocess_images([(y, uv, matrix)], [crop], spec)
    expected = preprocess_images([rgb_of(y, uv, matrix)], [crop], spec)
    off = np.abs(result - expected) * np.array(spec.std)[:, None, None]
    assert off.max() <= 1.001  # a grey level, where a half is rounded the other way
    assert (off > 1e-3).mean() < 1e-3


def test_nv12_is_bt601_as_opencv_reads_it() -> None:
    y, uv = planes(64, 48)
    y = np.maximum(y, 16)  # OpenCV clamps blacker than black to black
    converted = cv2.cvtColorTwoPlane(y, np.ascontiguousarray(uv), cv2.COLOR_YUV2RGB_NV12)
    assert np.abs(converted.astype(int) - rgb_of(y, uv)).max() <= 1


@pytest.mark.parametrize(
    ("yuv", "rgb", "matrix"),
    [
        ((16, 128, 128), (0, 0, 0), "bt601"),
        ((235, 128, 128), (255, 255, 255), "bt601"),
        ((81, 90, 240), (255, 0, 0), "bt601"),  # the primaries of BT.601 and BT.709 in eight bits
        ((145, 54, 34), (0, 255, 0), "bt601"),
        ((41, 240, 110), (0, 0, 255), "bt601"),
        ((63, 102, 240), (255, 0, 0), "bt709"),
        ((173, 42, 26), (0, 255, 0), "bt709"),
        ((32, 240, 118), (0, 0, 255), "bt709"),
        ((255, 128, 128), (255, 255, 255), "bt709_full"),
        ((76, 85, 255), (255, 0, 0), "bt601_full"),
    ],
)
def test_known_colours_of_nv12(yuv, rgb, matrix: str) -> None:
    y, uv = np.full((8, 8), yuv[0], np.uint8), np.full((4, 4, 2), yuv[1:], np.uint8)
    spec = ImageSpec(width=16, height=16, stride=16, mean=[0, 0, 0], std=[1, 1, 1])
    result = preprocess_images([(y, uv, matrix)], [image_crop(spec, 8, 8)], spec)[0, :, 5, 5]
    assert np.abs(result - rgb).max() <= 2  # the eight bits of YUV


@pytest.mark.parametrize(
    "wrong",
    [
        (np.zeros((7, 8), np.uint8), np.zeros((3, 4, 2), np.uint8)),
        (np.zeros((8, 8), np.uint8), np.zeros((4, 4), np.uint8)),
        (np.zeros((8, 8), np.uint8), np.zeros((4, 8, 2), np.uint8)),
        (np.zeros((8, 8), np.float32), np.zeros((4, 4, 2), np.uint8)),
        (np.zeros((8, 16), np.uint8)[:, ::2], np.zeros((4, 4, 2), np.uint8)),
        (np.zeros((8, 8), np.uint8), np.zeros((4, 4, 2), np.uint8), "bt2020"),
        (np.zeros((8, 8), np.uint8),),
    ],
)
def test_what_is_no_nv12_is_refused(wrong) -> None:
    spec = ImageSpec(width=16, height=16, stride=16)
    with pytest.raises(Error) as raised:
        preprocess_images([wrong], [ImageCrop()], spec)
    assert raised.value.code in ("E0201", "E0202")


def quantize_linear(values: np.ndarray, scale: float) -> np.ndarray:
    """ONNX Runtime's QuantizeLinear with a zero point of 0."""
    from onnx import TensorProto, helper, numpy_helper

    ort = pytest.importorskip("onnxruntime")
    node = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])
    known = [numpy_helper.from_array(np.float32(scale), "scale"), numpy_helper.from_array(np.int8(0), "zero")]
    info = [
        helper.make_tensor_value_info(n, t, values.shape)
        for n, t in (("x", TensorProto.FLOAT), ("y", TensorProto.INT8))
    ]
    model = helper.make_model(
        helper.make_graph([node], "g", info[:1], info[1:], known),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": values})[
        0
    ]


@pytest.mark.parametrize("scale", [2.0, 1.0, 0.02, 1 / 64, 1e-30])
@pytest.mark.parametrize("plain", [True, False])
def test_steps_are_what_quantize_linear_makes_of_the_values(scale: float, plain: bool) -> None:
    """Grey levels over 2 are halves, which go to the even one; those over 1e-30 are beyond every integer."""
    spec = ImageSpec(width=304, height=64, stride=16, **({"mean": (100, 100, 100), "std": (1, 1, 1)} if plain else {}))
    images, crops = [noise(304, 64), None, noise(500, 77)], [ImageCrop(), ImageCrop(), image_crop(spec, 500, 77)]
    expected = quantize_linear(preprocess_images(images, crops, spec), scale)
    result = quantize_images(images, crops, spec, scale)
    assert result.dtype == np.int8 and np.array_equal(result, expected) and not result[1].any()


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    with pytest.raises(Error) as raised:
        quantize_images([noise(8, 8)], [ImageCrop()], ImageSpec(), scale)
    assert raised.value.code == "E0104" and "scale" in raised.value.where


class Lazy:
    """Images that are made when they are asked for, as of a file."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> np.ndarray:
        if i >= len(self):
            raise IndexError
        return np.full((480, 640, 3), 40 * i + 1, np.uint8)


def test_images_that_are_made_when_they_are_asked_for_live_through_the_call() -> None:
    spec = ImageSpec()
    crops = [image_crop(spec, 640, 480)] * 4
    expected = preprocess_images(list(Lazy()), crops, spec)
    assert np.array_equal(preprocess_images(Lazy(), crops, spec), expected)
