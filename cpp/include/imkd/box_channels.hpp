// The box regression of one task group: ten channels per BEV cell, in the order of the network's output.
#pragma once

namespace imkd {

struct BoxChannel {
  enum Index {
    offset_x,  // cells, from the cell's centre to the box centre
    offset_y,
    above_ground,  // m, box centre above the ground plane
    log_length,    // log m
    log_width,
    log_height,
    sin_yaw,
    cos_yaw,
    velocity_x,  // m/s
    velocity_y,
    count
  };
};
constexpr int kBoxChannels = BoxChannel::count;

constexpr const char* kBoxChannelNames[kBoxChannels] = {"offset_x",   "offset_y",   "above_ground", "log_length",
                                                        "log_width",  "log_height", "sin_yaw",      "cos_yaw",
                                                        "velocity_x", "velocity_y"};

struct BoxSlice {  // channels [begin, end)
  const char* name;
  int begin;
  int end;
};
constexpr BoxSlice kBoxSlices[] = {
    {"offset", BoxChannel::offset_x, BoxChannel::above_ground},
    {"above_ground", BoxChannel::above_ground, BoxChannel::log_length},
    {"log_size", BoxChannel::log_length, BoxChannel::sin_yaw},
    {"heading", BoxChannel::sin_yaw, BoxChannel::velocity_x},
    {"velocity", BoxChannel::velocity_x, BoxChannel::count},
};

}  // namespace imkd
