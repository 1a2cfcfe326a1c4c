"""Recordings: MCAP files, ROS 2 bags, and folders of videos and images, as sources of frames."""

from imkd_edge.sources.recording.report import inspect_recording
from imkd_edge.sources.recording.source import RecordingSource, is_recording, names_recording
from imkd_edge.sources.recording.topic_map import CameraTopic, RadarTopic, TopicMap
from imkd_edge.sources.recording.tracks import Item
from imkd_edge.sources.recording.video import VideoSource, is_video_folder

__all__ = [
    "CameraTopic",
    "Item",
    "RadarTopic",
    "RecordingSource",
    "TopicMap",
    "VideoSource",
    "inspect_recording",
    "is_recording",
    "is_video_folder",
    "names_recording",
]
