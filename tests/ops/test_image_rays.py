"""Rays of feature pixels, against OpenCV's undistortion and a pinhole written out."""

import numpy as np
import pytest
from op_cases import DISTORTIONS, normalised, random_rig

from imkd_edge import Error
from imkd_edge.ops import ImageCrop, image_crop, image_rays
from imkd_edge.rig import CameraCalibration
from imkd_edge.spec import ImageSpec

IMAGE = ImageSpec(width=96, height=64, stride=8, anchor=0.7)


def raw_pixels(spec: ImageSpec, crop: ImageCrop) -> tuple[np.ndarray, np.ndarray]:
    """Raw u and v px of the centres of the feature pixels, (h, w) each."""
    v, u = np.mgrid[: spec.feature_height(), : spec.feature_width()]
    raw = (((index + 0.5) * spec.stride + start) / crop.scale - 0.5 for index, start in ((u, crop.left), (v, crop.top)))
    return tuple(raw)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_a_ray_is_the_undistorted_pixel(seed: int, distortion: str) -> None:
    for camera in random_rig(seed, distortion=distortion).cameras:
        crop = image_crop(IMAGE, camera.width, camera.height)
        rays = image_rays(IMAGE, camera, crop)
        assert rays.shape == (8, 12, 3) and rays.dtype == np.float64
        assert (rays[..., 2] == 1).all()
        np.testing.assert_allclose(rays[..., :2], normalised(camera, *raw_pixels(IMAGE, crop)), atol=1e-9)
        assert np.array_equal(image_rays(IMAGE, camera), rays)  # the default crop


def test_without_distortion_it_is_the_inverse_of_K() -> None:
    camera = random_rig(5).cameras[0]
    crop = ImageCrop(0.4, 3.5, -2.25)
    u, v = raw_pixels(IMAGE, crop)
    expected = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(camera.K).T
    np.testing.assert_allclose(image_rays(IMAGE, camera, crop), expected, rtol=0, atol=1e-13)


def test_beyond_the_fold_of_the_polynomial_there_is_no_ray() -> None:
    """r (1 - r^2) has its largest value 2 / sqrt(27) = 0.385 at r = 1 / sqrt(3)."""
    K = [[10.0, 0, 47.5], [0, 10, 31.5], [0, 0, 1]]
    camera = CameraCalibration(
        name="c",
        width=96,
        height=64,
        K=K,
        T_ego_camera=np.eye(4),
        distortion="plumb_bob",
        coefficients=(-1, 0, 0, 0, 0),
    )
    image = ImageSpec(width=96, height=64, stride=1)
    rays = image_rays(image, camera)
    u, v = raw_pixels(image, ImageCrop())
    radius = np.hypot((u - 47.5) / 10, (v - 31.5) / 10)
    assert np.isnan(rays[radius > 0.386]).all()
    assert np.isfinite(rays[radius < 0.384]).all()


def test_a_wrong_camera_or_spec_is_refused() -> None:
    camera = random_rig(0).cameras[0]
    with pytest.raises(Error) as raised:
        image_rays(ImageSpec(width=95, height=64, stride=8), camera)
    assert raised.value.code == "E0104"
    camera.T_ego_camera = np.diag([1.0, 1, 1, 2])
    with pytest.raises(Error) as raised:
        image_rays(IMAGE, camera)
    assert raised.value.code == "E0215"
