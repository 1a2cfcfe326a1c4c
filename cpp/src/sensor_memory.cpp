#include "sensor_memory.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <iterator>
#include <string>

#include "imkd/ego_motion.hpp"
#include "imkd/error.hpp"
#include "imkd/ops.hpp"
#include "number_text.hpp"
#include "ops/radar_point.hpp"
#include "time_ns.hpp"

namespace imkd {
namespace {

class Digest {  // FNV-1a, 64 bits
 public:
  void add(std::uint64_t value) { hash_ = (hash_ ^ value) * 1099511628211u; }
  std::uint64_t value() const { return hash_; }

 private:
  std::uint64_t hash_ = 14695981039346656037u;
};

constexpr int kSide = 64;
using Samples = std::array<std::array<std::uint8_t, kSide>, kSide>;

// The highest of the kFlatLevels adjacent levels that hold the most samples, if these are kFlatShare of all.
std::optional<int> flat_level(const Samples& samples) {
  std::array<int, 256> histogram{};
  for (const auto& row : samples)
    for (std::uint8_t sample : row) ++histogram[sample];
  int within = 0, most = 0, highest = 0;
  for (int level = 0; level < 256; ++level) {
    within += histogram[static_cast<std::size_t>(level)];
    if (level >= kFlatLevels) within -= histogram[static_cast<std::size_t>(level - kFlatLevels)];
    if (within > most) {
      most = within;
      highest = level;
    }
  }
  if (most < kFlatShare * kSide * kSide) return std::nullopt;
  return highest;
}

// Whether two by two neighbours are all brighter than `level`; single ones may be pixels that are broken.
bool has_light(const Samples& samples, int level) {
  for (std::size_t i = 0; i + 1 < kSide; ++i)
    for (std::size_t j = 0; j + 1 < kSide; ++j)
      if (std::min({samples[i][j], samples[i][j + 1], samples[i + 1][j], samples[i + 1][j + 1]}) > level) return true;
  return false;
}

bool is_flat(const Samples& samples) {
  const std::optional<int> level = flat_level(samples);
  return level && !has_light(samples, *level + kLight);
}

// Of the position: a heading may live on beside it.
std::uint64_t digest_of(const Mat4& T) {
  Digest digest;
  for (std::size_t i : {3u, 7u, 11u}) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &T[i], sizeof bits);
    digest.add(bits);
  }
  return digest.value();
}

Error impossible(const Vec3& twist) {
  std::string text;
  for (double v : twist) text += (text.empty() ? "" : ", ") + number_text(v, 6);
  return Error(Code::frame_bad_dtype, "(" + text + ") is not finite, or faster than 100 m/s or 2 pi rad/s",
               "FrameSet::ego.twist",
               "give vx, vy in m/s and the yaw rate in rad/s, not degrees, and nothing where the motion is unknown");
}

}  // namespace

ImageContents contents_of(const ImageView& image) {
  const int channels = image.chroma ? 1 : 3;
  const std::ptrdiff_t pixel_stride = image.chroma ? 1 : image.pixel_stride;
  Digest digest;
  Samples samples;  // of green, or of the luma
  for (int i = 0; i < kSide; ++i)
    for (int j = 0; j < kSide; ++j) {
      const std::uint8_t* pixel = image.data + std::int64_t(i) * image.height / kSide * image.row_stride +
                                  std::int64_t(j) * image.width / kSide * pixel_stride;
      samples[std::size_t(i)][std::size_t(j)] = pixel[channels / 2 * image.channel_stride];
      for (int channel = 0; channel < channels; ++channel) digest.add(pixel[channel * image.channel_stride]);
    }
  return {digest.value(), is_flat(samples)};
}

void check_layout(const ImageView& image, const std::string& where) {
  if (image.chroma && (image.width % 2 != 0 || image.height % 2 != 0))
    throw Error(Code::frame_bad_shape,
                "an NV12 image has " + std::to_string(image.width) + "x" + std::to_string(image.height) +
                    " pixels, but both must be even",
                where, "crop a row or column, and change the calibration with it");
  if (image.chroma && image.yuv > YuvMatrix::bt709_full)
    throw Error(Code::frame_bad_dtype, "is " + std::to_string(static_cast<int>(image.yuv)) + ", no colour matrix",
                where, "use a value of YuvMatrix, 0 to 3");

  const auto refuse_0 = [&](const std::string& stride, const std::string& what, const std::string& dense) {
    throw Error(Code::frame_bad_shape, stride + " is 0: every " + what + " is the first, only a single one may have 0",
                where, "give the bytes, " + dense + " if dense; make a NumPy view dense by np.ascontiguousarray");
  };
  if (image.height > 1 && image.row_stride == 0) refuse_0("row_stride", "row", "width * pixel_stride");
  if (image.chroma && image.height > 2 && image.chroma_stride == 0) refuse_0("chroma_stride", "row", "width");
  if (!image.chroma && image.width > 1 && image.pixel_stride == 0) refuse_0("pixel_stride", "pixel", "3");
}

std::uint64_t digest_of(const RadarSweep& sweep) {
  Digest digest;
  for (std::size_t i = 0; i < std::size_t(sweep.count) * 5; ++i) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, sweep.points + i, sizeof bits);
    digest.add(bits);
  }
  return digest.value();
}

bool SensorRecord::advance(std::int64_t timestamp_ns, std::int64_t max_age) {
  if (newest_ns && minus_ns(*newest_ns, timestamp_ns) > max_age) *this = {};
  if (newest_ns && timestamp_ns <= *newest_ns) return false;
  newest_ns = timestamp_ns;
  return true;
}

void SensorMemory::set_rig(const SensorRig& rig, double max_age) {
  max_age_ = to_ns(max_age);
  cameras_.assign(rig.cameras.size(), {});
  radars_.assign(rig.radars.size(), {});
}

void SensorMemory::reset() {
  for (Camera& camera : cameras_) static_cast<SensorRecord&>(camera) = {};
  for (Radar& radar : radars_) radar = {};
  pose_ = {};
}

SensorState SensorMemory::assess(std::size_t camera, const CameraCalibration& calibration, const ImageView& image,
                                 std::int64_t timestamp_ns, bool readable) {
  Camera& record = cameras_[camera];
  if (!fits(calibration, image)) return SensorState::invalid;
  record.fitted = true;
  if (!readable) return SensorState::ok;
  const ImageContents contents = contents_of(image);
  if (record.advance(timestamp_ns, max_age_)) record.set_contents(contents.digest);
  if (contents.flat) return SensorState::invalid;
  return record.repeats >= kFrozenAfter ? SensorState::frozen : SensorState::ok;
}

// The sweeps that no earlier frame had, oldest first.
void SensorMemory::observe(Radar& radar, int index, const FrameSet& frames) const {
  radar.left_out = false;
  std::optional<std::int64_t> newest;
  for (const RadarSweep& sweep : frames.sweeps)
    if (sweep.radar == index) newest = std::max(newest.value_or(sweep.timestamp_ns), sweep.timestamp_ns);
  if (newest && radar.newest_ns && minus_ns(*radar.newest_ns, *newest) > max_age_) radar = {};
  while (newest && (!radar.newest_ns || *newest > *radar.newest_ns)) {
    const RadarSweep* next = nullptr;
    for (const RadarSweep& sweep : frames.sweeps)
      if (sweep.radar == index && (!radar.newest_ns || sweep.timestamp_ns > *radar.newest_ns) &&
          (!next || sweep.timestamp_ns < next->timestamp_ns))
        next = &sweep;
    radar.newest_ns = next->timestamp_ns;
    if (mostly_valid(*next))
      radar.set_contents(digest_of(*next));
    else
      radar.repeats = 0;  // invalid, not frozen
  }
}

void SensorMemory::leave_out_frozen(FrameSet& frames) {
  for (std::size_t i = 0; i < radars_.size(); ++i) observe(radars_[i], static_cast<int>(i), frames);
  const auto frozen = [&](const RadarSweep& sweep) {
    Radar& radar = radars_[static_cast<std::size_t>(sweep.radar)];
    if (radar.repeats < kFrozenAfter || distance_ns(sweep.timestamp_ns, frames.timestamp_ns) > max_age_) return false;
    radar.left_out = true;
    return true;
  };
  frames.sweeps.erase(std::remove_if(frames.sweeps.begin(), frames.sweeps.end(), frozen), frames.sweeps.end());
}

void SensorMemory::mark_frozen(Health& health) const {
  for (std::size_t i = 0; i < radars_.size(); ++i)
    if (radars_[i].left_out) health.radars[i] = SensorState::frozen;
}

namespace {

// Calls with every pose of the frame and its time.
template <class Call>
void for_each_pose(FrameSet& frames, Call&& call) {
  call(frames.ego.T_world_ego, frames.timestamp_ns);
  for (std::size_t i = 0; i < frames.camera_T_world_ego.size(); ++i)
    call(frames.camera_T_world_ego[i], frames.camera_time(i));
  for (RadarSweep& sweep : frames.sweeps) call(sweep.T_world_ego, sweep.timestamp_ns);
}

}  // namespace

bool SensorMemory::take_motion(FrameSet& frames) {
  bool valid = false, invalid = false;
  const auto take = [&](auto& value, bool is_valid, auto refuse) {
    if (!is_valid && !localised_) refuse();
    (is_valid ? valid : invalid) = true;
    if (!is_valid) value.reset();
  };
  const auto take_pose = [&](std::optional<Mat4>& pose, const char* where) {
    if (!pose) return;
    take(pose, is_rigid(*pose), [&] { check_rigid(*pose, where); });
    if (pose) pose = orthonormalised(*pose, where);
  };
  take_pose(frames.ego.T_world_ego, "FrameSet::ego.T_world_ego");
  std::optional<Vec3>& twist = frames.ego.twist;
  if (twist) take(twist, is_possible(*twist), [&] { throw impossible(*twist); });
  for (std::optional<Mat4>& pose : frames.camera_T_world_ego) take_pose(pose, "FrameSet::camera_T_world_ego");
  for (RadarSweep& sweep : frames.sweeps) take_pose(sweep.T_world_ego, "FrameSet::sweeps, T_world_ego");
  localised_ = localised_ || valid;
  observe_pose(frames);
  const bool frozen = leave_out_frozen_poses(frames);
  return leave_out_jumps(frames) || frozen || invalid;
}

void SensorMemory::observe_pose(const FrameSet& frames) {
  if (pose_.newest_ns && minus_ns(*pose_.newest_ns, frames.timestamp_ns) > max_age_) pose_ = {};
  const std::optional<std::int64_t> before = pose_.newest_ns;
  if (!pose_.advance(frames.timestamp_ns, max_age_)) return;
  const Vec3 twist = frames.ego.twist.value_or(Vec3{});
  const double speed = std::hypot(twist[0], twist[1]);
  if (before && speed > kTwistNoise) pose_.travel += speed * seconds_between(*before, frames.timestamp_ns);
  if (!frames.ego.T_world_ego) return;
  pose_.set_contents(digest_of(*frames.ego.T_world_ego));
  if (pose_.repeats == 1) pose_.travel = 0;
  if (pose_.travel >= kFrozenTravel) pose_.frozen = pose_.contents;
}

// True where it leaves out the frame's own pose.
bool SensorMemory::leave_out_frozen_poses(FrameSet& frames) {
  const auto frozen = [&](std::optional<Mat4>& pose) {
    if (!pose || !pose_.frozen || digest_of(*pose) != *pose_.frozen) return false;
    pose.reset();
    return true;
  };
  for (std::optional<Mat4>& pose : frames.camera_T_world_ego) frozen(pose);
  for (RadarSweep& sweep : frames.sweeps) frozen(sweep.T_world_ego);
  return frozen(frames.ego.T_world_ego);
}

bool SensorMemory::TimedPose::operator<(const TimedPose& other) const {
  return time_ns != other.time_ns ? time_ns < other.time_ns : **T < **other.T;
}

// True where it leaves out a pose: one beyond a jump, seen from the frame's own pose, or else from that nearest to the
// reference time, of two the earlier.
bool SensorMemory::leave_out_jumps(FrameSet& frames) {
  poses_.clear();
  for_each_pose(frames, [&](std::optional<Mat4>& T, std::int64_t time_ns) {
    if (T) poses_.push_back({time_ns, &T});
  });
  if (poses_.empty()) return false;
  std::sort(poses_.begin(), poses_.end());
  const auto distance = [&](const TimedPose& pose) -> std::int64_t {
    return pose.T == &frames.ego.T_world_ego ? -1 : distance_ns(pose.time_ns, frames.timestamp_ns);
  };
  const auto start = std::min_element(
      poses_.begin(), poses_.end(), [&](const TimedPose& a, const TimedPose& b) { return distance(a) < distance(b); });
  const auto jumps = [](const TimedPose& a, const TimedPose& b) {
    return is_jump(**a.T, **b.T, seconds_between(a.time_ns, b.time_ns));
  };
  const auto after = std::adjacent_find(start, poses_.end(), jumps);
  const auto before = std::adjacent_find(std::make_reverse_iterator(start + 1), poses_.rend(), jumps);
  const auto reset = [](const TimedPose& pose) { pose.T->reset(); };
  if (after != poses_.end()) std::for_each(after + 1, poses_.end(), reset);
  if (before != poses_.rend()) std::for_each(before + 1, poses_.rend(), reset);
  return after != poses_.end() || before != poses_.rend();
}

}  // namespace imkd
