"""Images: frozen ones, and dark ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np

from imkd_edge.checks.data.report import Findings, error, listed, warning
from imkd_edge.errors import Code

FLAT = 2.0  # grey levels of standard deviation: a covered or dead camera
LARGE_SHARE = 0.5  # of the images of a camera: an error
STEP = 4  # pixels between those that are looked at


@dataclass
class ImageStatistics:
    """Of one camera over the frames that were read."""

    images: int = 0
    first: dict[bytes, str] = field(default_factory=dict)  # digest -> frame
    copies: list[tuple[str, str]] = field(default_factory=list)  # frame, the one with the same image before it
    flat: list[str] = field(default_factory=list)

    def add(self, name: str, image: np.ndarray) -> None:
        """An image (H, W, 3) uint8 of a frame."""
        self.images += 1
        coarse = np.ascontiguousarray(image[::STEP, ::STEP])
        if coarse.std() < FLAT:
            self.flat.append(name)
            return
        digest = blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
        if digest in self.first:
            self.copies.append((name, self.first[digest]))
        else:
            self.first[digest] = name

    def to_dict(self) -> dict[str, Any]:
        return {"images": self.images, "copies": len(self.copies), "flat": len(self.flat)}


def judge(cameras: Mapping[str, ImageStatistics]) -> Findings:
    """What is wrong with the images of each camera."""
    for name, camera in cameras.items():
        where = f"camera {name}"
        if camera.copies:
            grade = error if len(camera.copies) > LARGE_SHARE * camera.images else warning
            frames = listed(f"{frame} (as {first})" for frame, first in camera.copies)
            what = f"{len(camera.copies)} of {camera.images} images are copies of earlier ones: {frames}"
            fix = "leave the camera out of frames that it has no image of: a frozen image trains wrong labels"
            yield grade(Code.source_duplicate, "frozen images", what, where, fix)
        if camera.flat:
            grade = error if len(camera.flat) > LARGE_SHARE * camera.images else warning
            what = f"{len(camera.flat)} of {camera.images} images are of one colour: {listed(camera.flat)}"
            fix = "leave the camera out of these frames, or uncover it"
            yield grade(Code.source_bad_image, "dark images", what, where, fix)
