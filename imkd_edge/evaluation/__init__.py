"""Metrics on detections: `kitti` (average precision by rotated overlap) and `nuscenes` (the official devkit)."""
