"""nuScenes v1.0: a reader of its folders (and of a single scene), and a writer that makes such a folder of any source.

Schema: Caesar et al., CVPR 2020; github.com/nutonomy/nuscenes-devkit, docs/schema_nuscenes.md. Its conventions end
here: boxes w, l, h with quaternions in the global frame, microseconds, one ego pose per sensor reading.
"""

from imkd_edge.sources.nuscenes.labels import DETECTION_CLASSES
from imkd_edge.sources.nuscenes.radar import radar_points
from imkd_edge.sources.nuscenes.reader import NuScenesSource, is_nuscenes
from imkd_edge.sources.nuscenes.splits import GET_DEVKIT, OFFICIAL, official_splits

__all__ = [
    "DETECTION_CLASSES",
    "GET_DEVKIT",
    "OFFICIAL",
    "NuScenesSource",
    "is_nuscenes",
    "official_splits",
    "radar_points",
]
