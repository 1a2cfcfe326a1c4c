// What the items of a sensor show over time: whether their contents repeat, whether an image shows anything, and
// whether the sensor has ever delivered well.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "imkd/frames.hpp"
#include "imkd/result.hpp"
#include "imkd/rig.hpp"

namespace imkd {

// Of 64 x 64 pixels spread over the image, of NV12 their luma: enough to detect a sensor's noise.
struct ImageContents {
  std::uint64_t digest = 0;
  // At least kFlatShare of the pixels lie within kFlatLevels, and no light of 1/32 of the width and height stands out
  // of them: saturated, dark or covered. A night with headlights is not flat.
  bool flat = false;
};
constexpr double kFlatShare = 0.95;
constexpr int kFlatLevels = 4;  // adjacent grey levels of 256
constexpr int kLight = 32;      // grey levels above those of the flat part
// m that the twist says the vehicle has moved while its position stayed equal to the bit: the localisation stands
// still. A pose that is held until the next one arrives, at 10 Hz, is not that far behind.
constexpr double kFrozenTravel = 3.0;
// m/s; a slower twist may be the noise of one that stands, which would add up to any distance: it counts as no motion.
constexpr double kTwistNoise = 0.5;
ImageContents contents_of(const ImageView& image);
std::uint64_t digest_of(const RadarSweep& sweep);

inline bool fits(const CameraCalibration& camera, const ImageView& image) {
  return image.width == camera.width && image.height == camera.height;
}

// Throws Error frame_bad_shape, frame_bad_dtype: the parity, strides and colour matrix of an image that is present.
void check_layout(const ImageView& image, const std::string& where);

// The newest item of a sensor, and how many in a row have its contents.
struct SensorRecord {
  std::optional<std::int64_t> newest_ns;
  std::uint64_t contents = 0;
  int repeats = 0;

  // False where the item is not newer than the newest one. One that is older by more than max_age (ns) restarts.
  bool advance(std::int64_t timestamp_ns, std::int64_t max_age);
  void set_contents(std::uint64_t digest) {
    repeats = digest == contents ? repeats + 1 : 1;
    contents = digest;
  }
};

// What a Detector remembers of its sensors, besides past maps. It allocates in set_rig, and for more poses than any
// frame before had.
class SensorMemory {
 public:
  void set_rig(const SensorRig& rig, double max_age);  // forgets the sensors; max_age: s
  void reset();                                        // the frames to come are of another recording

  // What an image of another size than its calibration's is: before its camera delivered one that fits, the caller's
  // mistake; after it, a fault of the camera.
  bool delivered_fitting(std::size_t camera) const { return cameras_[camera].fitted; }
  // invalid: of another size, or flat; frozen: its contents repeat; otherwise ok. readable: by the host; the contents
  // of other memory are not looked at.
  SensorState assess(std::size_t camera, const CameraCalibration& calibration, const ImageView& image,
                     std::int64_t timestamp_ns, bool readable);

  // Leaves out the sweeps of radars whose contents repeat; mark_frozen then sets the states of these.
  void leave_out_frozen(FrameSet& frames);
  void mark_frozen(Health& health) const;

  // Orthonormalises the poses. Before the first valid pose or twist an invalid one is the caller's mistake and throws;
  // after it, it is a fault of the localisation and left out: true. So is a pose that is frozen, with those of the
  // sweeps and images that equal it, and so are poses beyond a jump (see FrameSet).
  bool take_motion(FrameSet& frames);

 private:
  struct Camera : SensorRecord {
    bool fitted = false;
  };
  struct Radar : SensorRecord {
    bool left_out = false;  // in this frame
  };
  struct Localisation : SensorRecord {    // its newest time is that of the last frame, with a pose or without
    double travel = 0;                    // m, by the twists, since the pose is what it is
    std::optional<std::uint64_t> frozen;  // contents of the last one that was
  };
  struct TimedPose {
    std::int64_t time_ns;
    std::optional<Mat4>* T;                        // of a frame
    bool operator<(const TimedPose& other) const;  // any order of two at one time that does not depend on the sensors'
  };
  void observe(Radar& radar, int index, const FrameSet& frames) const;
  void observe_pose(const FrameSet& frames);
  bool leave_out_frozen_poses(FrameSet& frames);
  bool leave_out_jumps(FrameSet& frames);

  bool localised_ = false;    // a pose or twist was valid
  std::int64_t max_age_ = 0;  // ns
  std::vector<Camera> cameras_;
  std::vector<Radar> radars_;
  Localisation pose_;
  std::vector<TimedPose> poses_;  // of this frame
};

}  // namespace imkd
