// One exception type; every error has a code, what was wrong, where, and how to mend it.
#pragma once
#include <stdexcept>
#include <string>

namespace imkd {

// The only catalogue of codes. The hundreds digit is the noun at fault.
enum class Code : int {
  // 1xx ModelSpec and configuration
  spec_syntax = 101,       // not JSON / TOML, or not an object
  spec_unknown_key = 102,  // a key that no version of the spec has
  spec_missing_key = 103,
  spec_bad_value = 104,  // wrong type, out of range, or inconsistent with another field
  spec_version = 105,
  // 2xx SensorRig and FrameSet (the caller's mistakes)
  frame_bad_dtype = 201,
  frame_bad_shape = 202,
  frame_unknown_sensor = 203,
  frame_count = 204,  // a list whose length is not the rig's
  frame_bad_time = 205,
  rig_syntax = 211,
  rig_unknown_key = 212,
  rig_missing_key = 213,
  rig_bad_value = 214,  // focal <= 0, K not upper triangular, size <= 0, unknown model, ...
  rig_not_rigid = 215,  // rotation not orthonormal, or last row not 0 0 0 1
  rig_duplicate_name = 216,
  rig_empty = 217,
  rig_mismatch = 218,  // rig does not fit the bundle (number of cameras)
  // 3xx sources: files on disk
  source_unknown = 301,  // no reader recognises this folder
  source_missing_file = 302,
  source_bad_image = 303,   // truncated or not an image
  source_bad_points = 304,  // truncated PCD, wrong field list, not numbers
  source_bad_label = 305,
  source_bad_calibration = 306,
  source_unknown_frame = 307,
  // 4xx Bundle
  bundle_missing = 401,
  bundle_manifest = 402,  // manifest.json is not valid JSON or of the wrong shape
  bundle_unknown_key = 403,
  bundle_missing_key = 404,
  bundle_version = 405,
  bundle_missing_file = 406,
  bundle_checksum = 407,  // a byte changed
  bundle_bad_path = 408,  // a file name that leaves the folder, or an ONNX part that keeps tensors in another file
  bundle_tensor_mismatch = 409,  // the ONNX part's tensors are not what the spec says
  bundle_bad_value = 410,
  // 5xx Engine and device
  engine_unavailable = 501,
  engine_load = 502,
  engine_bind = 503,
  engine_run = 504,
  engine_stale = 505,   // built from another model, for another machine, or with other tools than these
  detector_busy = 506,  // a second thread's call while one is under way
  device_unavailable = 511,
  device_failed = 512,  // CUDA refused a call; what runs on the device afterwards is undefined
  // 6xx training, evaluation, calibration
  train_config = 601,
  train_checkpoint = 602,
  train_diverged = 603,
  train_no_data = 604,
  calibration_few_frames = 611,  // fewer usable frames than a calibration needs
  calibration_no_radar = 612,    // not one radar return in the frames
  calibration_other_rig = 613,   // the frames are of sensors that the bundle was not made for
  quantized_already = 614,       // the bundle's parts hold Q/DQ pairs
  // 7xx environment
  missing_extra = 701,
  write_failed = 702,
  abi_mismatch = 703,  // a struct of the C ABI of a size or with contents that this library does not know
};

class Error : public std::runtime_error {
 public:
  Error(Code code, std::string what, std::string where = {}, std::string fix = {});
  Code code() const { return code_; }
  const std::string& problem() const { return problem_; }
  const std::string& where() const { return where_; }
  const std::string& fix() const { return fix_; }
  // "error[E0203] what / where / how to fix" is what() of the exception.

 private:
  Code code_;
  std::string problem_, where_, fix_;
};

std::string code_name(Code code);  // "E0203"

}  // namespace imkd
