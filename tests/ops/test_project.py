"""The projection through the lens, against OpenCV's, and its inverse."""

import numpy as np
import pytest
from op_cases import DISTORTIONS, opencv_pixels, random_camera, small_spec

from imkd_edge import Error, ops
from imkd_edge.rig import CameraCalibration, SensorRig

WIDE = np.array([[120.0, 0, 319.5], [0, 120, 179.5], [0, 0, 1]])


def directions(rng: np.random.Generator, count: int, degrees: float) -> np.ndarray:
    """(count, 3) unit vectors within an angle of the optical axis."""
    angle, turn = np.radians(rng.uniform(0, degrees, count)), rng.uniform(0, 2 * np.pi, count)
    return np.stack([np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.cos(angle)], -1)


def random_lens(rng: np.random.Generator, distortion: str) -> CameraCalibration:
    """A camera whose radial coefficients are up to six times those of DISTORTIONS, of any sign."""
    camera = random_camera(rng, "c", distortion)
    k = np.array(DISTORTIONS[distortion]) * rng.uniform(0, 6) * rng.choice([-1, 1], len(DISTORTIONS[distortion]))
    if distortion in ("plumb_bob", "rational_polynomial"):
        k[2:4] = rng.uniform(-1e-3, 1e-3, 2)
    camera.coefficients = k.tolist()
    return camera


def fisheye(coefficients: tuple[float, ...] = (0.03, -0.012, 0.004, -0.0006)) -> CameraCalibration:
    lens = {"distortion": "fisheye", "coefficients": coefficients}
    return CameraCalibration(name="c", width=640, height=360, K=WIDE, T_ego_camera=np.eye(4), **lens)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_a_point_projects_as_in_opencv(seed: int, distortion: str) -> None:
    rng = np.random.default_rng(seed)
    camera = random_camera(rng, "c", distortion)
    camera.T_ego_camera = np.eye(4)
    points = directions(rng, 500, 40) * rng.uniform(0.5, 80, (500, 1))
    np.testing.assert_allclose(ops.project(camera, points), opencv_pixels(camera, points), atol=1e-8)


@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_a_ray_of_a_pixel_projects_onto_it(distortion: str) -> None:
    """Over 200 random lenses, folded ones among them."""
    rng, rays_seen = np.random.default_rng(1), 0
    for _ in range(200):
        camera = random_lens(rng, distortion)
        pixels = rng.uniform(-50, [camera.width + 50, camera.height + 50], (200, 2))
        rays = ops.pixel_rays(camera, pixels)
        seen = np.isfinite(rays).all(1)
        assert (np.isnan(rays) == ~seen[:, None]).all()
        np.testing.assert_allclose(np.linalg.norm(rays[seen], axis=1), 1, atol=1e-12)
        np.testing.assert_allclose(ops.project(camera, rays[seen]), pixels[seen], atol=1e-6)
        rays_seen += seen.sum()
    assert rays_seen > 15_000


def largest_angle(camera: CameraCalibration) -> float:
    """Degrees off the axis up to which the lens projects, by a search over angles."""
    angles = np.radians(np.arange(0.05, 180, 0.05))
    pixels = ops.project(camera, np.stack([np.sin(angles), 0 * angles, np.cos(angles)], -1))
    return 0.05 * float(np.argmin(np.isfinite(pixels).all(1)))


@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_every_direction_that_a_lens_projects_comes_back(distortion: str) -> None:
    """Up to 90 % of the angle at which the image folds; at the fold itself two directions share a pixel."""
    rng = np.random.default_rng(2)
    for _ in range(100):
        camera = random_lens(rng, distortion)
        rays = directions(rng, 300, 0.9 * largest_angle(camera))
        np.testing.assert_allclose(ops.pixel_rays(camera, ops.project(camera, rays)), rays, atol=1e-6)


@pytest.mark.parametrize("distortion", ["plumb_bob", "rational_polynomial", "fisheye"])
def test_the_image_of_a_lens_grows_outwards_as_far_as_it_projects(distortion: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(100):
        camera = random_lens(rng, distortion)
        if distortion != "fisheye":
            camera.coefficients = [*camera.coefficients[:2], 0, 0, *camera.coefficients[4:]]
        angles = np.radians(np.arange(0, 180, 0.25))
        u = ops.project(camera, np.stack([np.sin(angles), 0 * angles, np.cos(angles)], -1))[:, 0]
        seen = np.isfinite(u)
        assert seen[0] and not (np.diff(seen.astype(int)) > 0).any()  # no ray beyond the first that has no pixel
        assert (np.diff(u[seen]) > 0).all()


def test_a_fisheye_of_190_degrees_sees_behind_its_plane() -> None:
    """theta (1 + k1 theta^2 + ...) written out, at 95 degrees, where cv2.fisheye has no answer."""
    camera = fisheye()
    k1, k2, k3, k4 = camera.coefficients
    theta = np.radians(95)
    distance = theta * (1 + k1 * theta**2 + k2 * theta**4 + k3 * theta**6 + k4 * theta**8)
    ray = np.array([np.sin(theta) * 0.6, np.sin(theta) * 0.8, np.cos(theta)])
    pixel = 120 * distance * np.array([0.6, 0.8]) + WIDE[:2, 2]
    np.testing.assert_allclose(ops.project(camera, 7 * ray), pixel, atol=1e-9)
    np.testing.assert_allclose(ops.pixel_rays(camera, pixel), ray, atol=1e-12)


def test_rays_behind_the_plane_have_no_optical_depth_and_are_left_out_of_the_lift() -> None:
    spec = small_spec(cameras=1)
    camera = fisheye((0, 0, 0, 0))
    camera.T_ego_camera = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    crop = ops.image_crop(spec.image, 640, 360)
    row, column = np.mgrid[: spec.image.feature_height(), : spec.image.feature_width()]
    stride = spec.image.stride
    u = ((column + 0.5) * stride + crop.left) / crop.scale - 0.5
    v = ((row + 0.5) * stride + crop.top) / crop.scale - 0.5
    angle = np.hypot(u - WIDE[0, 2], v - WIDE[1, 2]) / 120
    behind = angle >= np.pi / 2
    assert behind.any() and np.isfinite(ops.pixel_rays(camera, np.stack([u, v], -1))[behind]).all()
    assert (np.isnan(ops.image_rays(spec.image, camera)[..., 0]) == behind).all()
    table = ops.lift_table(spec, SensorRig(cameras=[camera]), [crop])
    assert len(table.points) and not behind.ravel()[table.pixels].any()


@pytest.mark.parametrize("distortion", DISTORTIONS)
def test_what_no_lens_can_project_is_nan(distortion: str) -> None:
    camera = random_camera(np.random.default_rng(0), "c", distortion)
    points = [[0, 0, -1], [0, 0, 0], [np.nan, 0, 1], [0, 0, np.nan], [0, np.inf, -1.0]]
    assert np.isnan(ops.project(camera, points)).all()
    assert np.isnan(ops.pixel_rays(camera, [[np.nan, 0]])).all()
    if distortion != "fisheye":
        assert np.isnan(ops.project(camera, [[1, 0, -1e-9], [1, 0, 0]])).all()


def test_any_shape_of_points_keeps_its_shape() -> None:
    camera = fisheye()
    points = np.random.default_rng(0).normal(size=(4, 5, 3))
    pixels = ops.project(camera, points)
    assert pixels.shape == (4, 5, 2)
    np.testing.assert_array_equal(pixels[2, 3], ops.project(camera, points[2, 3].tolist()))
    assert ops.project(camera, np.zeros((0, 3))).shape == (0, 2)


@pytest.mark.parametrize("points", [np.zeros((3, 2)), 5.0, "abc", [[1, 2, 3], [1, 2]]])
def test_points_of_another_shape_are_refused(points: object) -> None:
    with pytest.raises(Error) as raised:
        ops.project(fisheye(), points)  # type: ignore[arg-type]
    assert raised.value.code == "E0202"
