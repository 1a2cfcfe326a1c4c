"""The caller's mistakes raise errors with codes; none of them reaches the core."""

from collections.abc import Callable

import numpy as np
import pytest
from op_cases import random_rig, small_spec

from imkd_edge import Error, ops
from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.spec import GridSpec, ImageSpec

SPEC, RIG = small_spec(), random_rig(0)
IMAGE = np.zeros((40, 60, 3), np.uint8)
CROP = ops.image_crop(SPEC.image, 60, 40)
DEPTH, CONTEXT = np.zeros((2, 24, 8, 12), np.float32), np.zeros((2, 5, 8, 12), np.float32)
POINTS = np.zeros((3, 5), np.float32)
HEATMAP, BOX = np.zeros((3, 24, 32), np.float32), np.zeros((20, 24, 32), np.float32)
MAP = np.zeros((2, 24, 32), np.float32)
TABLE = ops.lift_table(SPEC, RIG)
SHEARED = np.eye(4) + np.eye(4, k=1)


def images(*arrays: object) -> Callable[[], object]:
    return lambda: ops.preprocess_images(list(arrays), [CROP] * len(arrays), SPEC.image)


def sweeps(*radar: object, now: object = 0, ego: object = None) -> Callable[[], object]:
    return lambda: ops.voxelize_radar(SPEC, RIG, list(radar), now, ego)


def broken_spec(**changes: object):
    spec = small_spec()
    for path, value in changes.items():
        part = spec
        *parents, last = path.split("__")
        for name in parents:
            part = getattr(part, name)
        setattr(part, last, value)
    return spec


MISTAKES = {
    "image as float": ("E0201", images(IMAGE.astype(np.float32))),
    "image as list": ("E0201", images(IMAGE.tolist())),
    "image int8": ("E0201", images(IMAGE.astype(np.int8))),
    "grey image": ("E0202", images(IMAGE[..., 0])),
    "image with alpha": ("E0202", images(np.zeros((4, 4, 4), np.uint8))),
    "channels first": ("E0202", images(IMAGE.transpose(2, 0, 1))),
    "image of one row repeated": ("E0202", images(np.broadcast_to(IMAGE[:1], (4, *IMAGE.shape[1:])))),
    "image without rows": ("E0202", images(IMAGE[:0])),
    "image without columns": ("E0202", images(IMAGE[:, :0])),
    "a crop too few": ("E0204", lambda: ops.preprocess_images([IMAGE, IMAGE], [CROP], SPEC.image)),
    "crop scale 0": ("E0202", lambda: ops.ImageCrop(0.0, 0, 0)),
    "crop scale nan": ("E0202", lambda: ops.ImageCrop(float("nan"), 0, 0)),
    "crop left inf": ("E0202", lambda: ops.ImageCrop(1.0, float("inf"), 0)),
    "raw width 0": ("E0202", lambda: ops.image_crop(SPEC.image, 0, 10)),
    "image spec with std 0": ("E0104", lambda: ops.preprocess_images([IMAGE], [CROP], ImageSpec(std=(1, 0, 1)))),
    "image spec with negative width": ("E0104", lambda: ops.preprocess_images([IMAGE], [CROP], ImageSpec(width=-16))),
    "rig with a camera too many": ("E0218", lambda: ops.lift_table(SPEC, random_rig(0, cameras=3))),
    "a crop too many": ("E0204", lambda: ops.lift_table(SPEC, RIG, [CROP] * 3)),
    "table of another grid": ("E0202", lambda: ops.lift(broken_spec(grid__x_max=17), TABLE, DEPTH, CONTEXT)),
    "table of another image": ("E0202", lambda: ops.lift(broken_spec(image__width=104), TABLE, DEPTH, CONTEXT)),
    "depth as float64": ("E0201", lambda: ops.lift(SPEC, TABLE, DEPTH.astype(float), CONTEXT)),
    "depth with a bin too few": ("E0202", lambda: ops.lift(SPEC, TABLE, DEPTH[:, :-1], CONTEXT)),
    "context without a camera": ("E0202", lambda: ops.lift(SPEC, TABLE, DEPTH, CONTEXT[:1])),
    "context flat": ("E0202", lambda: ops.lift(SPEC, TABLE, DEPTH, CONTEXT.ravel())),
    "spec invalid": ("E0104", lambda: ops.lift(broken_spec(context_channels=0), TABLE, DEPTH, CONTEXT)),
    "spec without features": ("E0104", lambda: ops.voxelize_radar(broken_spec(radar__features=[]), RIG, [], 0)),
    "points as float64": ("E0201", sweeps(RadarSweep("r0", POINTS.astype(float)))),
    "points with 4 columns": ("E0202", sweeps(RadarSweep("r0", POINTS[:, :4]))),
    "one flat point": ("E0202", sweeps(RadarSweep("r0", POINTS[0]))),
    "radar unknown": ("E0203", sweeps(RadarSweep("front", POINTS))),
    "radar name not a string": ("E0201", sweeps(RadarSweep(3, POINTS))),
    "not a sweep": ("E0201", sweeps(POINTS)),
    "an array instead of a list": ("E0201", lambda: ops.voxelize_radar(SPEC, RIG, POINTS, 0)),
    "sweep time a float": ("E0205", sweeps(RadarSweep("r0", POINTS, 0.5))),
    "time beyond 64 bits": ("E0205", sweeps(now=2**63)),
    "time None": ("E0205", sweeps(now=None)),
    "pose (3, 4)": ("E0202", sweeps(RadarSweep("r0", POINTS, 0, np.eye(4)[:3]))),
    "pose sheared": ("E0215", sweeps(RadarSweep("r0", POINTS, 0, SHEARED))),
    "pose text": ("E0201", sweeps(RadarSweep("r0", POINTS, 0, np.full((4, 4), "x")))),
    "ego pose with nan": ("E0214", sweeps(ego=Ego(T_world_ego=np.full((4, 4), np.nan)))),
    "twist of 2": ("E0202", sweeps(ego=Ego(twist=(1, 2)))),
    "twist nan": ("E0201", sweeps(ego=Ego(twist=(1, 2, float("nan"))))),
    "ego not an Ego": ("E0201", sweeps(ego=np.eye(4))),
    "map as float64": ("E0201", lambda: ops.warp_bev(SPEC.grid, MAP.astype(float), np.eye(4))),
    "map of another grid": ("E0202", lambda: ops.warp_bev(SPEC.grid, MAP[:, :-1], np.eye(4))),
    "map without channels": ("E0202", lambda: ops.warp_bev(SPEC.grid, MAP[0], np.eye(4))),
    "grid of cell 0": ("E0104", lambda: ops.warp_bev(GridSpec(cell=0), MAP, np.eye(4))),
    "then pose (3, 4)": ("E0202", lambda: ops.warp_bev(SPEC.grid, MAP, np.eye(4)[:3])),
    "then pose sheared": ("E0215", lambda: ops.warp_bev(SPEC.grid, MAP, SHEARED)),
    "then pose with nan": ("E0214", lambda: ops.warp_bev(SPEC.grid, MAP, np.full((4, 4), np.nan))),
    "heatmap float64": ("E0201", lambda: ops.decode(SPEC, HEATMAP.astype(float), BOX)),
    "heatmap without a class": ("E0202", lambda: ops.decode(SPEC, HEATMAP[:2], BOX)),
    "box without a group": ("E0202", lambda: ops.decode(SPEC, HEATMAP, BOX[:10])),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_has_its_code(mistake: str) -> None:
    code, call = MISTAKES[mistake]
    with pytest.raises(Error) as caught:
        call()
    assert caught.value.code == code and caught.value.what and str(caught.value).startswith(f"error[{code}] ")


def test_layout_is_not_a_mistake() -> None:
    """Any strides are allowed: the values count."""
    rng = np.random.default_rng(0)
    heatmap, box = rng.normal(0, 1, (3, 24, 32)).astype(np.float32), rng.normal(0, 1, (20, 24, 32)).astype(np.float32)
    dense = ops.decode(SPEC, heatmap, box)
    strided = ops.decode(SPEC, np.asfortranarray(heatmap), np.repeat(box, 2, axis=2)[..., ::2])
    assert all(a.tobytes() == b.tobytes() for a, b in zip(dense, strided, strict=True))
