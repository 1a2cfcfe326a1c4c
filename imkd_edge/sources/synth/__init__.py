"""SynthSource: a seeded synthetic street world with six cameras, five radars and, on request, a LiDAR."""

from imkd_edge.sources.nuscenes.vehicle import T_EGO_LIDAR
from imkd_edge.sources.synth.rig import default_rig
from imkd_edge.sources.synth.source import CACHED_SCENES, SynthSource

__all__ = ["CACHED_SCENES", "T_EGO_LIDAR", "SynthSource", "default_rig"]
