"""Shrinks an overview for a document: python -m imkd_edge.view.draw runs/demo/latest/overview.png docs/overview.png"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from imkd_edge.view.draw import cv2, write_png

WIDTH, LEVELS = 1300, 32  # px; values per channel


def main() -> None:
    """Writes the picture argv[1] with fewer pixels and colours to argv[2]."""
    source, target = map(Path, sys.argv[1:])
    picture = cv2.imread(str(source))
    if picture is None:
        sys.exit(f"not a picture: {source}")
    height = round(picture.shape[0] * WIDTH / picture.shape[1])
    small = cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA)[:, :, ::-1]
    target.parent.mkdir(parents=True, exist_ok=True)
    write_png(target, (np.round(small / 255 * (LEVELS - 1)) * (255 / (LEVELS - 1))).astype(np.uint8), compression=9)


if __name__ == "__main__":
    main()
