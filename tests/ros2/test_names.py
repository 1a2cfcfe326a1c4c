"""The ROS 2 node looks for the same fields, under the same keys, as the reader of recordings."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from imkd_edge.sources.recording import radar
from imkd_edge.sources.recording.topic_map import CameraTopic, RadarTopic, TopicMap

NODE = Path(__file__).resolve().parents[2] / "cpp" / "ros2"
USUAL = {
    "kVelocity": radar.VELOCITY,
    "kCompensated": radar.COMPENSATED,
    "kIntensity": (*radar.RCS, *radar.SNR, *radar.MAGNITUDE),
}


@pytest.mark.parametrize("name", USUAL)
def test_the_usual_names_of_a_field_are_those_of_recordings(name: str) -> None:
    text = (NODE / "convert.hpp").read_text()
    values = re.search(rf"{name} = \{{(.*?)\}};", text, re.S)[1]
    assert tuple(re.findall(r'"(\w+)"', values)) == USUAL[name]


def test_the_keys_of_a_sensor_are_those_of_a_topic_map_or_of_the_node_alone() -> None:
    text = (NODE / "node.cpp").read_text()
    of_radars = set(re.findall(r'key \+ "(\w+)"', text))
    assert of_radars - {each.name for each in fields(RadarTopic)} == {"message"}
    assert "topic" in {each.name for each in fields(CameraTopic)} & of_radars
    shared = {"odometry", "ego_frame", "trigger", "tolerance"}
    assert shared <= {each.name for each in fields(TopicMap)}
    assert all(f'("{name}",' in text for name in shared)
