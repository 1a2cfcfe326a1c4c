// The C ABI: calls of every handle in any order, with structs of any size, each in memory of exactly that size. The
// engines are fakes, linked in place of the library's.
#include <list>
#include <memory>

#include "fake_bundle.hpp"
#include "imkd/imkd.h"
#include "sensors.hpp"

using namespace imkd;
using fuzz::Input;

namespace {

template <class Handle>
struct Delete;
#define IMKD_HANDLE(name)                                                         \
  template <>                                                                     \
  struct Delete<imkd_##name> {                                                    \
    void operator()(imkd_##name* handle) const { imkd_##name##_destroy(handle); } \
  };
IMKD_HANDLE(detector)
IMKD_HANDLE(synchronizer)
IMKD_HANDLE(monitor)
IMKD_HANDLE(watchdog)
IMKD_HANDLE(tracker)
template <class Handle>
using Owned = std::unique_ptr<Handle, Delete<Handle>>;

class Caller {
 public:
  explicit Caller(Input& input) : input_(input) {}
  ~Caller() {
    detector_.reset();
    synchronizer_.reset();
    fuzz::require(lent_ == released_, "lent memory is released once");
  }
  void call();

 private:
  // A struct of its own size, in one of sixteen cases of another; never NULL but where `value` is for the library to
  // refuse.
  template <class Struct>
  Struct* sized(Struct value) {
    const std::size_t size = input_.below(16) ? sizeof value : input_.value<std::uint8_t>() * 2u;
    value.struct_size = static_cast<std::uint32_t>(size);
    auto& bytes = memory_.emplace_back(std::max(size, sizeof value.struct_size));
    std::memcpy(bytes.data(), &value, std::min(bytes.size(), sizeof value));
    if (size > sizeof value && input_.below(4) == 0) bytes.back() = 1;
    return input_.below(64) == 63 ? nullptr : reinterpret_cast<Struct*>(bytes.data());
  }
  const double* doubles(std::size_t count) {
    if (input_.below(3)) return nullptr;
    auto& values = numbers_.emplace_back();
    if (count == 16) {
      const Mat4 pose = input_.pose();
      values.assign(pose.begin(), pose.end());
    } else {
      for (std::size_t i = 0; i < count; ++i) values.push_back(input_.number());
    }
    return values.data();
  }
  imkd_image image(std::size_t camera) {
    const ImageView view = sensors_.image(input_, rig_.cameras[camera]);
    imkd_image image{};
    image.struct_size = sizeof image;
    image.width = view.width;
    image.height = view.height;
    image.has_timestamp = input_.below(8) != 0;
    image.timestamp_ns = input_.time(now_);
    image.data = view.data;
    image.row_stride = view.row_stride;
    image.pixel_stride = view.pixel_stride;
    image.channel_stride = view.channel_stride;
    image.chroma = view.chroma;
    image.chroma_stride = view.chroma_stride;
    image.yuv = input_.below(32) ? static_cast<std::uint32_t>(view.yuv) : input_.value<std::uint32_t>();
    image.reserved = input_.below(64) == 63;
    image.T_world_ego = doubles(16);
    return image;
  }
  imkd_sweep sweep() {
    const RadarSweep s = sensors_.sweep(input_, rig_.radars.size(), now_);
    return {sizeof(imkd_sweep), s.radar, s.count, input_.below(8) != 0, s.timestamp_ns, s.points, doubles(16)};
  }
  const char* model() {
    static const fuzz::Folder folder("small.imkd");
    static const bool written = (fakes::write_bundle(folder.path), true);
    static const std::string path = folder.path.string(), spec = fakes::small_spec().to_json();
    const char* const models[] = {written ? path.c_str() : "", spec.c_str(), "none", nullptr, "{"};
    return models[input_.below(16) ? input_.below(2) : input_.below(5)];
  }
  const char* rig() {
    static const std::string json = fakes::small_rig().to_json();
    const char* const rigs[] = {json.c_str(), "none", nullptr, "{\"cameras\": []}"};
    return rigs[input_.below(16) ? 0 : input_.below(4)];
  }

  // An array whose structs are `stride` bytes apart, the last in memory of exactly that size.
  template <class Struct>
  const Struct* array(std::vector<Struct>& items) {
    if (items.empty() || input_.below(16)) return items.data();
    const std::size_t stride = sizeof(Struct) - 8 + static_cast<std::size_t>(input_.below(24));
    auto& bytes = memory_.emplace_back(stride * items.size());
    for (std::size_t i = 0; i < items.size(); ++i) {
      items[i].struct_size = static_cast<std::uint32_t>(stride);
      std::memcpy(bytes.data() + i * stride, &items[i], std::min(stride, sizeof(Struct)));
    }
    return reinterpret_cast<const Struct*>(bytes.data());
  }

  void infer(const imkd_frames* frames);
  imkd_frames made();
  void detect();
  void load();
  void push();
  void pop();
  void observe();
  void watch();
  void track();
  void name();

  Input& input_;
  const SensorRig rig_ = fakes::small_rig();
  std::int64_t now_ = 1'000'000'000;
  fuzz::Sensors sensors_;
  std::list<std::vector<std::uint8_t>> memory_;
  std::list<std::vector<double>> numbers_;
  std::vector<imkd_image> images_;
  std::vector<imkd_sweep> sweeps_;
  std::vector<imkd_detection> boxes_;
  Owned<imkd_detector> detector_{imkd_detector_new()};
  Owned<imkd_synchronizer> synchronizer_{imkd_synchronizer_new()};
  Owned<imkd_monitor> monitor_{imkd_monitor_new()};
  Owned<imkd_watchdog> watchdog_{imkd_watchdog_new()};
  Owned<imkd_tracker> tracker_{imkd_tracker_new()};
  int lent_ = 0, released_ = 0, loads_ = 0;
};

void Caller::load() {
  if (++loads_ > 3) return;  // each parses a bundle and a rig, which takes longer than all else
  switch (input_.below(4)) {
    case 0: {
      imkd_options options{};
      options.threads = input_.below(16) ? 1 : input_.below(8) - 2;  // making a hundred takes a hundred times as long
      options.device = input_.below(8) ? "cpu" : "abacus";
      options.score_threshold = input_.below(8) ? 0.f : static_cast<float>(input_.number());
      options.debug = input_.flag();
      imkd_detector_load(detector_.get(), model(), rig(), sized(options));
      return;
    }
    case 1: {
      imkd_synchronizer_options options{};
      options.tolerance = input_.below(8) ? 0 : input_.number();
      options.max_images = input_.below(8) ? 0 : input_.value<std::int8_t>();
      imkd_synchronizer_load(synchronizer_.get(), model(), rig(), input_.flag() ? sized(options) : nullptr);
      return;
    }
    case 2: {
      imkd_tracker_options options{};
      options.max_tracks = input_.below(8) ? 0 : input_.value<std::int8_t>();
      options.max_age = input_.below(8) ? 0 : input_.number();
      imkd_tracker_load(tracker_.get(), model(), input_.flag() ? sized(options) : nullptr);
      return;
    }
    default:
      imkd_monitor_load(monitor_.get(), model(), rig(), nullptr);
  }
}

imkd_frames Caller::made() {
  images_.clear();
  sweeps_.clear();
  for (int i = 0; i < 2; ++i) images_.push_back(image(static_cast<std::size_t>(i)));
  for (int count = input_.below(4); count > 0; --count) sweeps_.push_back(sweep());
  imkd_frames frames{};
  frames.image_count = static_cast<std::uint32_t>(input_.below(16) ? 2 : input_.below(3));
  frames.timestamp_ns = input_.time(now_);
  frames.images = array(images_);
  frames.sweeps = array(sweeps_);
  frames.sweep_count = static_cast<std::uint32_t>(sweeps_.size());
  frames.T_world_ego = doubles(16);
  frames.twist = doubles(3);
  return frames;
}

void Caller::infer(const imkd_frames* frames) {
  imkd_result* result = sized(imkd_result{});
  if (imkd_detector_infer(detector_.get(), frames, result) != IMKD_OK) {
    fuzz::require(*imkd_detector_error(detector_.get()), "a failed call has a text");
    return;
  }
  if (result->struct_size < sizeof *result) return;
  float sum = 0;
  for (std::uint32_t i = 0; i < result->detection_count; ++i) sum += imkd_detection_at(result, i)->score;
  for (std::uint32_t i = 0; i < result->camera_count; ++i)
    fuzz::require(imkd_detector_name(detector_.get(), IMKD_SENSOR_STATES, result->camera_states[i]),
                  "a state has a name");
  fuzz::require(std::isfinite(sum), "scores are finite");
  imkd_tracker_update(tracker_.get(), result, sized(imkd_tracks{}));
}

void Caller::detect() {
  const imkd_frames frames = made();
  infer(sized(frames));
  if (input_.below(8) == 0) imkd_detector_set_rig(detector_.get(), rig());
  if (input_.below(8) == 0) imkd_detector_reset(detector_.get());
}

void Caller::push() {
  std::int32_t pushed = -1;
  const auto release = [](void* caller) { ++static_cast<Caller*>(caller)->released_; };
  const imkd_release lend = input_.flag() ? +release : nullptr;
  const int kind = input_.below(3);
  lent_ += lend && kind < 2;
  if (kind == 0) {
    const int camera = input_.below(16) ? input_.below(2) : input_.value<std::int8_t>();
    imkd_synchronizer_push_camera(synchronizer_.get(), camera, sized(image(static_cast<std::size_t>(camera & 1))), now_,
                                  lend, this, &pushed);
  } else if (kind == 1) {
    imkd_synchronizer_push_radar(synchronizer_.get(), sized(sweep()), now_, lend, this, &pushed);
  } else {
    imkd_synchronizer_push_ego(synchronizer_.get(), doubles(16), doubles(3), input_.time(now_), now_, &pushed);
  }
  fuzz::require(pushed == -1 || imkd_detector_name(nullptr, IMKD_PUSHED, static_cast<std::uint32_t>(pushed)),
                "the result of a push has a name");
}

void Caller::pop() {
  const imkd_frames* frames = nullptr;
  std::uint32_t complete = 0;
  while (imkd_synchronizer_pop(synchronizer_.get(), now_, &frames, &complete) == IMKD_OK && frames) infer(frames);
  imkd_synchronizer_counts(synchronizer_.get(), sized(imkd_counts{}));
  if (input_.below(16) == 0) imkd_synchronizer_reset(synchronizer_.get());
}

void Caller::observe() {
  if (input_.flag())
    imkd_monitor_observe_camera(monitor_.get(), input_.below(2), sized(image(0)), now_);
  else
    imkd_monitor_observe_radar(monitor_.get(), sized(sweep()), now_);
  imkd_monitor_check(monitor_.get(), now_, sized(imkd_health{}));
  if (input_.below(16) == 0) imkd_monitor_reset(monitor_.get());
}

void Caller::watch() {
  imkd_watchdog_options options{};
  options.without_timer = 1;
  options.deadline = input_.flag() ? 0.1 : input_.number();
  options.clock = [](void* caller) { return static_cast<Caller*>(caller)->now_; };
  options.user = this;
  if (input_.below(4) == 0) imkd_watchdog_start(watchdog_.get(), sized(options));
  if (input_.flag()) imkd_watchdog_beat(watchdog_.get());
  std::uint32_t overdue = 0;
  imkd_watchdog_poll(watchdog_.get());
  imkd_watchdog_state(watchdog_.get(), &overdue, nullptr);
}

void Caller::track() {
  boxes_.clear();
  for (int count = input_.below(8); count > 0; --count) {
    const auto number = [&] { return static_cast<float>(input_.number()); };
    boxes_.push_back({number(), number(), number(), 4, 2, number(), 0, number(), number(), 0.5f, input_.below(3)});
  }
  imkd_result result{};
  result.timestamp_ns = input_.time(now_);
  result.detections = input_.below(32) ? boxes_.data() : nullptr;
  result.detection_count = static_cast<std::uint32_t>(boxes_.size());
  result.detection_stride = input_.below(32) ? sizeof(imkd_detection) : input_.value<std::uint8_t>() % 44u;
  result.T_world_ego = doubles(16);
  result.twist = doubles(3);
  imkd_tracks* tracks = sized(imkd_tracks{});
  if (imkd_tracker_update(tracker_.get(), sized(result), tracks) == IMKD_OK)
    for (std::uint32_t i = 0; i < tracks->track_count; ++i)
      fuzz::require(imkd_track_at(tracks, i)->id > 0, "a track has an id");
  if (input_.below(16) == 0) imkd_tracker_reset(tracker_.get());
}

void Caller::name() {
  const char* name = imkd_detector_name(input_.flag() ? detector_.get() : nullptr,
                                        static_cast<imkd_names>(input_.below(12)), input_.value<std::uint8_t>());
  fuzz::require(!name || std::strlen(name) < 100, "a name is a text");
  for (const char* error : {imkd_detector_error(detector_.get()), imkd_synchronizer_error(synchronizer_.get()),
                            imkd_monitor_error(monitor_.get()), imkd_watchdog_error(watchdog_.get()),
                            imkd_tracker_error(tracker_.get()), imkd_tracker_error(nullptr)})
    fuzz::require(error && std::strlen(error) < 10'000, "an error is a text");
  if (input_.below(8) == 0) {
    detector_.reset(imkd_detector_new());
    synchronizer_.reset(imkd_synchronizer_new());
  }
}

void Caller::call() {
  now_ = input_.time(now_);
  switch (input_.below(12)) {
    case 0:
      return load();
    case 1:
    case 2:
      return detect();
    case 3:
      return observe();
    case 4:
      return watch();
    case 5:
      return track();
    case 6:
      return name();
    case 7:
    case 8:
      return pop();
    default:
      return push();
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input input(data, size);
  Caller caller(input);
  for (int calls = 0; calls < 48 && input.left() > 0; ++calls) caller.call();
  return 0;
}
