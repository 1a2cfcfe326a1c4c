"""The detector: ros2 launch imkd_ros detect.launch.py bundle:=/models/m.imkd rig:=/vehicle/rig.json params:=my.yaml"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue


def generate_launch_description() -> LaunchDescription:
    """The node, with its parameters of a file and the two of the command line."""
    params = str(Path(get_package_share_directory("imkd_ros")) / "params.yaml")
    given = {name: ParameterValue(LaunchConfiguration(name), value_type=str) for name in ("bundle", "rig")}
    return LaunchDescription(
        [
            DeclareLaunchArgument("bundle", description="folder of the bundle"),
            DeclareLaunchArgument("rig", description="file of the SensorRig"),
            DeclareLaunchArgument("params", default_value=params, description="file of the other parameters"),
            Node(
                package="imkd_ros",
                executable="imkd_detector",
                name="imkd_detector",
                output="screen",
                parameters=[LaunchConfiguration("params"), given],
                respawn=True,  # a GPU that fails ends the node
                respawn_delay=2.0,
            ),
        ]
    )
