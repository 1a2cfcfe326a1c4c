"""The ROS 2 node, compiled against a stand-in for rclcpp, talks to rclpy: its boxes are those of Python's Detector."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers import random_spec, write_random_bundle
from imkd_edge import CameraCalibration, Detector, Ego, RadarCalibration, RadarSweep, SensorRig
from imkd_edge.engines import engine_names, onnxruntime_library

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("IMKD_BUILD", ROOT / "build" / "tests"))
ROS = Path(os.environ.get("IMKD_ROS2", ROOT / "build" / "ros2"))
IMAGE, POINTS, ODOMETRY = "/camera/front/image_raw", "/radar/front/points", "/odometry"
SCAN = "/radar/front/scan"
LOOK_AHEAD = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]], np.float64)
pytestmark = pytest.mark.slow
OK, WARN, ERROR = range(3)  # of DiagnosticStatus


def ros_environment() -> dict[str, str]:
    """That of `source env.sh`, and the library that the wheels leave open."""
    command = f'. "{ROS}/env.sh" && env -0'
    text = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in text.split("\0") if line)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package in cpp/ros2, built by its own CMakeLists.txt against the installed library."""
    if not (ROS / "ready").is_file():
        pytest.skip("ROS 2 ABSENT: the node was not compiled (bash tests/ros2/environment.sh build/ros2)")
    if "onnxruntime-native" not in engine_names():
        pytest.skip("the native engine was not built: the ROS 2 node is NOT tested")
    folder = tmp_path_factory.mktemp("ros2")
    install = ["cmake", "--install", BUILD, "--prefix", folder / "prefix", "--component", "cpp"]
    subprocess.run(install, check=True, capture_output=True)
    configure = ["cmake", "-S", ROOT / "cpp" / "ros2", "-B", folder / "build", "-DCMAKE_BUILD_TYPE=Release"]
    configure += [f"-DCMAKE_PREFIX_PATH={folder / 'prefix'};{ROS}", f"-DPython3_EXECUTABLE={ROS}/bin/python"]
    configure += [f"-Drclcpp_DIR={ROOT / 'tests' / 'ros2' / 'shim'}", "-DCMAKE_CXX_FLAGS=-Werror"]
    configure += [f"-DCMAKE_INSTALL_PREFIX={folder / 'install'}"]
    for command in (configure, ["cmake", "--build", folder / "build", "--target", "install"]):
        done = subprocess.run(command, capture_output=True, text=True, env=ros_environment())
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "install"


@pytest.fixture(scope="module")
def rig() -> SensorRig:
    K = np.array([[256.0, 0, 160], [0, 256, 90], [0, 0, 1]])
    camera = CameraCalibration(name="front", width=320, height=180, K=K, T_ego_camera=LOOK_AHEAD)
    return SensorRig(
        cameras=[camera], radars=[RadarCalibration(name="radar_front", T_ego_radar=np.eye(4), velocity="raw")]
    )


@pytest.fixture(scope="module")
def vehicle(tmp_path_factory: pytest.TempPathFactory, rig: SensorRig) -> Path:
    """A folder with the node's files and the sensors' data."""
    folder = tmp_path_factory.mktemp("vehicle")
    write_random_bundle(folder / "m.imkd", random_spec(cameras=1))
    (folder / "rig.json").write_text(rig.to_json())
    random = np.random.default_rng(3)
    np.save(folder / "image.npy", random.integers(0, 256, (180, 320, 3), dtype=np.uint8))
    low, high = [1, -30, -1, -10, -8], [50, 30, 2, 30, 8]
    np.save(folder / "points.npy", random.uniform(low, high, (300, 5)).astype(np.float32))
    low, high = [2, -1.2, -0.02, -10, -8], [50, 1.2, 0.02, 30, 8]
    np.save(folder / "polar.npy", random.uniform(low, high, (300, 5)).astype(np.float32))
    return folder


def start(node: Path, folder: Path, *parameters: str) -> subprocess.Popen:
    given = [f"bundle:={folder / 'm.imkd'}", f"rig:={folder / 'rig.json'}", "device:=cpu", "threads:=1", *parameters]
    command = [node / "lib" / "imkd_ros" / "imkd_detector", "--ros-args"]
    command += ["--params-file", node / "share" / "imkd_ros" / "params.yaml"]
    for each in given:
        command += ["-p", each]
    python = Path(sysconfig.get_config_var("LIBDIR")) / "libpython3.11.so.1.0"
    fallback = Path("/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0")
    library = next((each for each in (python, fallback) if each.is_file()), None)
    assert library, "no libpython3.11, which the wheels of ROS 2 leave open: apt install libpython3.11"
    more = {"LD_PRELOAD": str(library), "IMKD_ORT_LIBRARY": str(onnxruntime_library()), "ROS_DOMAIN_ID": "77"}
    environment = ros_environment() | more
    return subprocess.Popen(
        [str(word) for word in command], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def converse(node: Path, vehicle: Path, tmp_path: Path) -> Callable[..., dict]:
    """Runs the node beside the peer; what the peer heard, and what the node printed."""

    def run(steps: list[dict], *parameters: str) -> dict:
        for name in ("image.npy", "points.npy", "polar.npy"):
            shutil.copy(vehicle / name, tmp_path)
        (tmp_path / "steps.json").write_text(json.dumps(steps))
        process = start(node, vehicle, *parameters)
        try:
            peer = [ROS / "bin" / "python", ROOT / "tests" / "ros2" / "peer.py", tmp_path]
            environment = ros_environment() | {"ROS_DOMAIN_ID": "77"}
            done = subprocess.run(peer, capture_output=True, text=True, timeout=120, env=environment)
        finally:
            process.send_signal(signal.SIGINT)
            _, printed = process.communicate(timeout=30)
        assert done.returncode == 0, done.stdout + done.stderr + printed
        assert process.returncode == 0, printed
        return json.loads((tmp_path / "heard.json").read_text()) | {"printed": printed}

    return run


# A message may be lost before both sides have found each other: it is sent again, when the last one is forgotten.
WHOLE = {"topics": [ODOMETRY, POINTS, IMAGE], "times": 5, "seconds": 3, "until": "detections"}
PAUSE = {"topics": [], "seconds": 0.8}
LISTEN = {"topics": [], "seconds": 1.5, "until": "diagnostics"}


def python_boxes(vehicle: Path, rig: SensorRig, points: np.ndarray, sent: int, ns: int) -> list:
    """The detections of the peer's message number `sent`."""
    image = np.load(vehicle / "image.npy")
    image[0, 0] ^= sent % 2
    ego = Ego(np.eye(4), np.array([5, 0, 0.1]))
    with Detector(vehicle / "m.imkd", rig, engine="onnxruntime-native", threads=1) as detector:
        sweep = RadarSweep("radar_front", points, ns, np.eye(4))
        return list(detector.infer({"front": image}, [sweep], ego, ns).detections)


def compare(said: list[dict], detections: list, tolerance: float) -> None:
    assert len(said) == len(detections) > 0
    for box, d in zip(said, detections, strict=True):
        assert (box["label"], box["id"]) == (d.label, "")
        assert box["score"] == pytest.approx(d.score, abs=tolerance)
        assert [*box["center"], *box["size"]] == pytest.approx([*d.center, *d.size], abs=10 * tolerance)
        assert np.cos(box["yaw"] - d.yaw) == pytest.approx(1, abs=tolerance)


def test_the_node_publishes_the_boxes_of_python(converse, vehicle: Path, rig: SensorRig) -> None:
    # In the first frame the synchronizer does not know yet which sensors deliver; the second has none of its sweeps.
    heard = converse([WHOLE, PAUSE, WHOLE, LISTEN])
    said, sent = heard["detections"][-1], len(heard["sent"])
    assert heard["diagnostics"][-1]["imkd_detector: detector"]["mode"] == "full"
    assert said["ns"] == heard["sent"][-1] and said["frame"] == "base_link"
    points = np.load(vehicle / "points.npy") + np.float32(1e-3) * (sent - 1)
    detections = python_boxes(vehicle, rig, points, sent, said["ns"])
    compare(said["boxes"], detections, 1e-6)
    cubes = [marker for marker in heard["markers"][-1] if marker[0] == 1 and marker[1] == 0]
    assert len(cubes) == len(detections) and heard["markers"][-1][0][1] == 3  # first DELETEALL


def test_a_radar_may_publish_scans(converse, vehicle: Path, rig: SensorRig) -> None:
    scan = WHOLE | {"topics": [ODOMETRY, SCAN, IMAGE]}
    topic = [f"radars.radar_front.topic:={SCAN}", "radars.radar_front.message:=RadarScan"]
    heard = converse([scan, PAUSE, scan, LISTEN], *topic)
    said = heard["detections"][-1]
    assert heard["diagnostics"][-1]["imkd_detector: detector"]["mode"] == "full"
    distance, azimuth, elevation, intensity, velocity = np.load(vehicle / "polar.npy").astype(np.float64).T
    x, y = (distance * np.cos(elevation) * turn(azimuth) for turn in (np.cos, np.sin))
    points = np.stack([x, y, distance * np.sin(elevation), intensity, velocity], 1).astype(np.float32)
    compare(said["boxes"], python_boxes(vehicle, rig, points, len(heard["sent"]), said["ns"]), 1e-5)


def test_a_track_keeps_its_id_from_frame_to_frame(converse) -> None:
    """The peer's scene hardly changes: what is detected with a score of 0.1 becomes a track, and stays the same one."""
    steady = {"topics": [ODOMETRY, POINTS, IMAGE], "times": 25, "seconds": 0.1}
    heard = converse([WHOLE, steady], "confirm_score:=0.1", "birth_score:=0.1")
    ids = [{box["id"] for box in frame["boxes"]} for frame in heard["tracks"]]
    assert len(ids) > 15 and all(each.isdigit() for frame in ids for each in frame)
    assert len(set.intersection(*ids[-10:])) > 0
    assert all(len(frame["boxes"]) == len(names) for frame, names in zip(heard["tracks"], ids, strict=True))


def test_diagnostics_name_the_state_of_each_sensor_and_the_latency(converse) -> None:
    steady = {"topics": [ODOMETRY, POINTS, IMAGE], "times": 30, "seconds": 0.1}
    heard = converse([WHOLE, steady])
    said = heard["diagnostics"][-1]
    assert set(said) == {f"imkd_detector: {name}" for name in ("detector", "front", "radar_front", "odometry")}
    for name in ("front", "radar_front", "odometry"):
        assert (said[f"imkd_detector: {name}"]["level"], said[f"imkd_detector: {name}"]["message"]) == (OK, "ok")
    detector = said["imkd_detector: detector"]
    assert detector["level"] in (OK, WARN) and detector["ego motion"] in ("poses", "twist")
    assert 0 < float(detector["infer median ms"]) <= float(detector["latency median ms"]) < 3000
    assert 1 <= int(detector["frames"]) <= 20


def test_a_radar_that_falls_silent_is_lost_and_the_camera_goes_on(converse) -> None:
    camera_alone = {"topics": [ODOMETRY, IMAGE], "times": 35, "seconds": 0.1}
    heard = converse([WHOLE, camera_alone])
    said = heard["diagnostics"][-1]
    assert said["imkd_detector: radar_front"]["message"] == "lost"
    assert said["imkd_detector: radar_front"]["level"] == ERROR
    assert said["imkd_detector: front"]["level"] == OK
    assert said["imkd_detector: detector"]["mode"] == "camera_only"
    assert len(heard["detections"]) > 20


def test_what_a_sensor_says_wrong_is_refused_named_and_survived(converse) -> None:
    odd = {"topics": [IMAGE], "encoding": "yuv422", "times": 3, "seconds": 0.1}
    other = {"topics": [ODOMETRY], "child": "imu", "times": 3, "seconds": 0.1}
    old = {"topics": [POINTS], "age": 5, "times": 3, "seconds": 0.1}
    heard = converse([odd, other, old, LISTEN, WHOLE])
    said = heard["diagnostics"][-1]
    assert int(said["imkd_detector: front"]["refused"]) >= 1
    assert "'yuv422' is not read" in said["imkd_detector: front"]["last refusal"]
    assert "'imu'" in said["imkd_detector: odometry"]["last refusal"]
    assert said["imkd_detector: radar_front"]["last refusal"] == "late"
    assert heard["detections"] and "yuv422" in heard["printed"]


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("cameras.frnt.topic:=/a", "E0102.*there is no parameter cameras.frnt.topic"),
        ("cameras.front.topic:=''", "E0103.*cameras.front.topic is missing"),
        ("radars.radar_front.sign:=0", "radars.radar_front.sign"),
        ("timeout:=2.0", "timeout"),
        ("radars.radar_front.message:=Tracks", "E0104.*'Tracks'"),
        ("trigger:=rear", "E0203.*rear"),
        ("device:=gpu", "E0511.*gpu"),
        ("rig:=/nowhere.json", "E0.*nowhere"),
    ],
)
def test_a_wrong_parameter_ends_the_node_with_its_name(node: Path, vehicle: Path, parameter: str, said: str) -> None:
    process = start(node, vehicle, parameter)
    _, printed = process.communicate(timeout=30)
    assert process.returncode == 4
    assert re.search(said, printed), printed
