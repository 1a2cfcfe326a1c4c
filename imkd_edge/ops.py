"""Geometry, pre- and post-processing shared by training and runtime: deterministic C++ that releases the GIL."""

from imkd_edge._core import (
    EgoSpeed,
    ImageCrop,
    LiftTable,
    RadarStats,
    cell_index,
    decode,
    estimate_ego_speed,
    image_crop,
    image_rays,
    lift,
    lift_table,
    preprocess_images,
    quantize_images,
    set_threads,
    voxelize_radar,
    warp_bev,
)

__all__ = [
    "EgoSpeed",
    "ImageCrop",
    "LiftTable",
    "RadarStats",
    "cell_index",
    "decode",
    "estimate_ego_speed",
    "image_crop",
    "image_rays",
    "lift",
    "lift_table",
    "preprocess_images",
    "quantize_images",
    "set_threads",
    "voxelize_radar",
    "warp_bev",
]
