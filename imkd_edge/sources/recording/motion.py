"""The vehicle's motion in a recording: its odometry's topic, or TF."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.sources.geometry import inverse
from imkd_edge.sources.recording.index import Index
from imkd_edge.sources.recording.poses import Chain, Odometry
from imkd_edge.sources.recording.topic_map import TF, TopicMap


def motion_of(index: Index, topic_map: TopicMap, path: Path, segment: int = 0) -> Odometry | Chain | None:
    """The motion in a part of a drive; None where it is unknown.

    Raises:
        Error source_bad_value for a topic that is no odometry; source_bad_calibration where TF does not join its child
            frame and the vehicle's.
    """
    name, ego = topic_map.odometry, topic_map.ego_frame
    if not name:
        return None
    if name == TF:
        return index.tree.world(ego, topic_map.world_frame)
    if name not in index.odometry:
        known = ", ".join(sorted(index.odometry)) or "none"
        what, fix = f"there is no odometry {name!r}", f"the topics of odometry are: {known}; or write {TF!r}"
        raise Error(Code.source_bad_value, what, str(path), fix)
    log = index.odometry[name]
    rows = np.flatnonzero(np.frombuffer(log.segments, np.uint16) == segment)
    if not len(rows):
        return None
    times, first = np.unique(np.frombuffer(log.poses.times, np.int64)[rows], return_index=True)
    twists = np.frombuffer(log.twists, np.float64).reshape(-1, 6)[rows][first]
    child = log.child or ego
    where = f"{path}, odometry {name!r}"
    T_ego_child = np.eye(4) if child == ego else index.tree.fixed(ego, child, where)[0]
    return Odometry(log.poses.poses(rows), times, twists, inverse(T_ego_child))
