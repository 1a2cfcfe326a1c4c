#!/bin/bash
# ROS 2 (Kilted, from Python wheels) for tests/ros2, without a ROS 2 installation: bash tests/ros2/environment.sh FOLDER
# Python 3.11, x86-64; 400 MB, three minutes. The wheels have no rclcpp: tests/ros2/shim stands in for it.
set -e
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" && folder=$(cd "$1" && pwd)
[ -e "$folder/ready" ] && exit 0
python3.11 -m venv "$folder"
"$folder/bin/python" -m pip --disable-pip-version-check install -q numpy catkin-pkg \
  ros-{rclpy,rmw-fastrtps-cpp,sensor-msgs,nav-msgs,geometry-msgs,visualization-msgs,diagnostic-msgs} \
  ros-ament-{cmake,package,cmake-include-directories} \
  ros-ament-cmake-{gtest,gmock,pytest,ros,ros-core,gen-version-h,vendor-package} \
  ros-{rosidl-core-generators,rosidl-default-generators,python-cmake-module,fastrtps-cmake-module}

# The wheels' CMake files hold paths of the machine that built them.
packages=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
python_include=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
numpy_include=$("$folder/bin/python" -c 'import numpy; print(numpy.get_include())')
grep -rl /opt/python/cp311 "$folder/share" | xargs sed -i \
  "s#/opt/python/cp311-cp311/include/python3.11#$python_include#g; s#/opt/python/cp311-cp311/lib/[^;\"]*/numpy/_core/include#$numpy_include#g"
sed -i "s#/usr/lib64/libtinyxml2.so#$(ls "$packages"/ros_fastdds.libs/libtinyxml2*)#" "$folder"/share/fastdds/cmake/*-targets.cmake

cat > "$folder/env.sh" <<END
export AMENT_PREFIX_PATH=$folder CMAKE_PREFIX_PATH=$folder PATH=$folder/bin:\$PATH ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
export LD_LIBRARY_PATH=$folder/lib:$(ls -d "$packages"/ros_*.libs | paste -sd:)
END
. "$folder/env.sh"
for messages in vision_msgs radar_msgs; do
  cmake -S "$here/$messages" -B "$folder/build/$messages" -DCMAKE_INSTALL_PREFIX="$folder" \
    -DPython3_EXECUTABLE="$folder/bin/python" -DCMAKE_BUILD_TYPE=Release
  cmake --build "$folder/build/$messages" -j 2 --target install
done
touch "$folder/ready"
