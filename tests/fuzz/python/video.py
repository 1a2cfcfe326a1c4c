"""A folder of a video and images: the names of the images, then the tables of the video, a radar and the ego motion."""

import shutil
import warnings

import cv2
import numpy as np
from fuzz import scratch

from imkd_edge.errors import Error
from imkd_edge.rig import CameraCalibration, RadarCalibration, SensorRig
from imkd_edge.sources import open_source

SIDE, K, T = 32, [[20, 0, 16], [0, 20, 16], [0, 0, 1]], [[0, 0, 1, 1], [-1, 0, 0, 0], [0, -1, 0, 1], [0, 0, 0, 1]]
CAMERAS = [CameraCalibration(name=name, width=SIDE, height=SIDE, K=K, T_ego_camera=T) for name in ("film", "images")]
RIG = SensorRig(cameras=CAMERAS, radars=[RadarCalibration(name="radar", T_ego_radar=np.eye(4))])
PICTURE = cv2.imencode(".png", np.zeros((SIDE, SIDE, 3), np.uint8))[1].tobytes()
FOLDER = scratch.file("video/rig.json", RIG.to_json().encode()).parent
FILM = cv2.VideoWriter(str(FOLDER / "film.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (SIDE, SIDE))
for shade in (0, 80, 160):
    FILM.write(np.full((SIDE, SIDE, 3), shade, np.uint8))
FILM.release()


def run(data: bytes) -> None:
    names, *tables = scratch.parts(data, 4)
    shutil.rmtree(FOLDER / "images", ignore_errors=True)
    for name in names.decode("latin-1").split("\n")[:4]:
        if name and not {"/", "\0"} & set(name):
            scratch.file(f"video/images/{name[:60]}.png", PICTURE)
    for name, table in zip(("film", "radar", "ego"), tables, strict=True):
        scratch.file(f"video/{name}.csv", table)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = open_source(FOLDER)
        for name in source.names[:4]:
            try:
                source[name]
            except Error as fault:
                assert str(fault).startswith("error[E")
