// One exception type: a code, what was wrong, where, and how to mend it.
#pragma once
#include <stdexcept>
#include <string>

namespace imkd {

// The only list of codes. The hundreds digit names the concept at fault.
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
  frame_count = 204,  // a list whose length is not the rig's number of sensors
  frame_bad_time = 205,
  rig_syntax = 211,
  rig_unknown_key = 212,
  rig_missing_key = 213,
  rig_bad_value = 214,  // focal <= 0, K not upper triangular, size <= 0, unknown model, ...
  rig_not_rigid = 215,  // rotation not orthonormal, or last row not 0 0 0 1
  rig_duplicate_name = 216,
  rig_empty = 217,
  rig_mismatch = 218,  // rig does not fit the bundle (more cameras)
  // 3xx sources: files on disk
  source_unknown = 301,  // no reader recognises this folder
  source_missing_file = 302,
  source_bad_image = 303,   // truncated or not an image
  source_bad_points = 304,  // truncated PCD, wrong field list, not numbers
  source_bad_label = 305,
  source_bad_calibration = 306,
  source_unknown_frame = 307,
  source_syntax = 308,  // not JSON, or not an object
  source_unknown_key = 309,
  source_missing_key = 310,
  source_bad_value = 311,
  source_bad_path = 312,   // absolute, or leaves the folder
  source_duplicate = 313,  // a frame, key, sensor or file that is there twice
  source_bad_time = 314,   // times that go back, or of another clock
  source_bad_split = 315,  // names no frame, or overlaps another split
  // 4xx Bundle
  bundle_missing = 401,
  bundle_manifest = 402,  // manifest.json is not valid JSON or of the wrong shape
  bundle_unknown_key = 403,
  bundle_missing_key = 404,
  bundle_version = 405,
  bundle_missing_file = 406,
  bundle_checksum = 407,         // a byte changed
  bundle_bad_path = 408,         // a file name outside the folder, or an ONNX part with tensors in another file
  bundle_tensor_mismatch = 409,  // the ONNX part's tensors are not those of the spec
  bundle_bad_value = 410,
  bundle_unsigned = 411,        // where a signature is required
  signature_malformed = 412,    // manifest.json.minisig is no signature file
  signature_unknown_key = 413,  // of a key that is not in the trust folder
  signature_wrong = 414,        // not of this manifest, or not of this key
  bundle_rolled_back = 415,     // of a revision before the least that the trust folder allows
  trust_bad_value = 416,        // a trust folder that is missing, empty, unprotected, or holds a broken key
  // 5xx Engine and device
  engine_unavailable = 501,
  engine_load = 502,
  engine_bind = 503,
  engine_run = 504,
  engine_stale = 505,   // built from another model, for another machine, or with other versions of TensorRT and CUDA
  detector_busy = 506,  // a second thread's call while another call runs
  forked = 507,         // a call in a forked child on what the parent made
  device_unavailable = 511,
  device_failed = 512,  // CUDA refused a call; later work on the device is undefined
  // 6xx training, evaluation, calibration
  train_config = 601,
  train_checkpoint = 602,
  train_diverged = 603,
  train_no_data = 604,
  calibration_few_frames = 611,  // fewer usable frames than a calibration needs
  calibration_no_radar = 612,    // no radar return in the frames
  calibration_other_rig = 613,   // the frames' sensors are not those of the bundle
  quantized_already = 614,       // the bundle's parts contain Q/DQ pairs
  // 7xx environment
  missing_extra = 701,
  write_failed = 702,
  abi_mismatch = 703,     // a struct of the C ABI of unknown size or contents
  missing_library = 704,  // a shared library that is opened when it is needed
};

class Error : public std::runtime_error {
 public:
  Error(Code code, std::string what, std::string where = {}, std::string fix = {});
  Code code() const { return code_; }
  const std::string& problem() const { return problem_; }
  const std::string& where() const { return where_; }
  const std::string& fix() const { return fix_; }
  // what() is "error[E0203] problem / where / fix".

 private:
  Code code_;
  std::string problem_;
  std::string where_;
  std::string fix_;
};

std::string code_name(Code code);  // "E0203"

}  // namespace imkd
