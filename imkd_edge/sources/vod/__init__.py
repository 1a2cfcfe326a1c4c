"""View-of-Delft: one camera, one 3+1D radar, a 64-beam LiDAR, 3D boxes (Palffy et al., RA-L 2022).

Its conventions end here (github.com/tudelft-iv/view-of-delft-dataset, docs/): folders as KITTI's, one per sensor, whose
Tr_velo_to_cam belongs to that sensor. Labels give the bottom centre in the camera frame, but rotation_y is about the
LiDAR's -z axis, and the camera is tilted against the LiDAR by some degrees. So the ego frame is the LiDAR frame
(x forward, y left, z up): there, and only there, the boxes stand upright.
"""

from imkd_edge.sources.vod.formats import result_line
from imkd_edge.sources.vod.reader import VodSource

__all__ = ["VodSource", "result_line"]
