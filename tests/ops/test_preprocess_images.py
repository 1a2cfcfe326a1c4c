"""Resize, crop and normalisation in one pass."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imkd_edge.ops import ImageCrop, image_crop, preprocess_images
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
    "BGR seen as RGB": lambda a: a[..., ::-1],
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


@given(st.integers(1, 120), st.integers(1, 120), st.floats(0.05, 6), st.floats(-40, 200), st.floats(-40, 200), st.integers(0, 99))
@settings(derandomize=True, max_examples=60, deadline=None)
def test_any_crop_follows_the_definition(width: int, height: int, scale: float, left: float, top: float, seed: int) -> None:
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
