# rclcpp, as far as cpp/ros2 uses it, over rcl: the Python wheels of ROS 2 have no rclcpp.
find_package(rcl REQUIRED)
find_package(rcl_interfaces REQUIRED)
add_library(rclcpp::rclcpp INTERFACE IMPORTED)
target_include_directories(rclcpp::rclcpp INTERFACE ${CMAKE_CURRENT_LIST_DIR}/include)
# The wheels' libraries leave Python's symbols open.
target_link_options(rclcpp::rclcpp INTERFACE -Wl,--as-needed -Wl,--allow-shlib-undefined)
target_link_libraries(rclcpp::rclcpp INTERFACE ${rcl_TARGETS} ${rcl_interfaces_TARGETS} pthread)
