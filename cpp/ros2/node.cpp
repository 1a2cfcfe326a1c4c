// imkd_detector: the topics of cameras, radars and odometry -> boxes, tracks, markers and diagnostics. README.md has
// the parameters and topics.
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <memory>
#include <mutex>
#include <thread>

#include <diagnostic_msgs/msg/diagnostic_array.hpp>
#include <nav_msgs/msg/odometry.hpp>
#include <radar_msgs/msg/radar_scan.hpp>
#include <rclcpp/rclcpp.hpp>
#include <sensor_msgs/msg/image.hpp>
#include <sensor_msgs/msg/point_cloud2.hpp>
#include <vision_msgs/msg/detection3_d_array.hpp>
#include <visualization_msgs/msg/marker_array.hpp>

#include "convert.hpp"
#include "guarded.hpp"
#include "imkd/detector.hpp"
#include "imkd/monitor.hpp"
#include "imkd/synchronizer.hpp"
#include "imkd/tracker.hpp"
#include "publish.hpp"

namespace imkd_ros {

using diagnostic_msgs::msg::DiagnosticArray;
using diagnostic_msgs::msg::DiagnosticStatus;
using nav_msgs::msg::Odometry;
using radar_msgs::msg::RadarScan;
using sensor_msgs::msg::Image;
using sensor_msgs::msg::PointCloud2;
using vision_msgs::msg::Detection3DArray;
using visualization_msgs::msg::MarkerArray;

// Callbacks push into the synchronizer; a thread of its own pops the frames, so that no message waits for the networks.
class DetectorNode : public rclcpp::Node {
 public:
  DetectorNode() : Node("imkd_detector") {
    rig_ = imkd::SensorRig::load(required("rig", "file of the SensorRig"));
    load();
    subscribe();
    check_overrides();
    boxes_ = create_publisher<Detection3DArray>("~/detections", rclcpp::QoS(10));
    tracks_ = create_publisher<Detection3DArray>("~/tracks", rclcpp::QoS(10));
    markers_ = create_publisher<MarkerArray>("~/markers", rclcpp::QoS(10));
    track_markers_ = create_publisher<MarkerArray>("~/track_markers", rclcpp::QoS(10));
    diagnostics_ = create_publisher<DiagnosticArray>("/diagnostics", rclcpp::QoS(10));
    timer_ = create_wall_timer(std::chrono::seconds(1), [this] {
      guarded([this] { report(); },
              [this](const std::string& text, bool) { RCLCPP_ERROR(get_logger(), "%s", text.c_str()); });
    });
    last_result_ns_ = now_ns();
    worker_ = std::thread([this] { work(); });
  }

  ~DetectorNode() override {
    stop_ = true;
    if (worker_.joinable()) worker_.join();
  }

  bool failed() const { return failed_; }  // the GPU is in an undefined state

 private:
  // ---- parameters ----
  static rcl_interfaces::msg::ParameterDescriptor describe(const std::string& text) {
    rcl_interfaces::msg::ParameterDescriptor descriptor;
    descriptor.description = text;
    descriptor.read_only = true;
    return descriptor;
  }

  std::string text(const std::string& name, const std::string& fallback, const std::string& description) {
    return declare_parameter<std::string>(name, fallback, describe(description));
  }

  std::string required(const std::string& name, const std::string& description) {
    const std::string value = text(name, "", description);
    if (value.empty())
      throw imkd::Error(imkd::Code::spec_missing_key, "the parameter " + name + " is missing", get_name(),
                        "give the " + description);
    return value;
  }

  double number(const std::string& name, double fallback, double low, double high, const std::string& description) {
    auto descriptor = describe(description);
    descriptor.floating_point_range.resize(1);
    descriptor.floating_point_range[0].from_value = low;
    descriptor.floating_point_range[0].to_value = high;
    return declare_parameter<double>(name, fallback, descriptor);
  }

  int whole(const std::string& name, int fallback, int low, int high, int step, const std::string& description) {
    auto descriptor = describe(description);
    descriptor.integer_range.resize(1);
    descriptor.integer_range[0].from_value = low;
    descriptor.integer_range[0].to_value = high;
    descriptor.integer_range[0].step = step;
    return static_cast<int>(declare_parameter<int64_t>(name, fallback, descriptor));
  }

  // Every parameter that was given is one of the node's: a misspelt sensor would else be silent.
  void check_overrides() {
    for (const auto& [name, value] : get_node_parameters_interface()->get_parameter_overrides())
      if (!has_parameter(name) && name.rfind("qos_overrides.", 0) != 0)
        throw imkd::Error(imkd::Code::spec_unknown_key, "there is no parameter " + name, get_name(),
                          "correct its name; sensors have the names of the rig");
  }

  // ---- start ----
  void load() {
    imkd::DetectorOptions options;
    options.device = text("device", "auto", "auto, cpu or cuda");
    options.engine = text("engine", "auto", "auto, onnxruntime or tensorrt");
    options.threads = whole("threads", 0, 0, 256, 1, "threads on the CPU; 0: one per core");
    options.score_threshold = number("score_threshold", -1, -1, 1, "below it there is no box; negative: the bundle's");
    const std::string bundle = required("bundle", "folder of the bundle");
    RCLCPP_INFO(get_logger(), "loading %s", bundle.c_str());
    detector_ = std::make_unique<imkd::Detector>(imkd::Detector::load(bundle, rig_, options));
    imkd::SynchronizerOptions sync;
    sync.reference = text("trigger", "", "sensor whose messages make the frames; empty: the first camera");
    sync.tolerance = number("tolerance", sync.tolerance, 0.001, 1, "s between a frame and an item that belongs to it");
    sync.timeout = number("timeout", sync.timeout, 0, 1, "s that a frame waits for missing items");
    sync.max_delay = number("max_delay", sync.max_delay, 0.01, 10, "s from an item's stamp to its arrival");
    sync.max_future = number("max_future", sync.max_future, 0, 10, "s that a stamp may exceed the node's time");
    sync.lost_after =
        number("lost_after", sync.lost_after, 0.1, 60, "s of silence after which a sensor is not awaited");
    synchronizer_ = std::make_unique<imkd::Synchronizer>(rig_, detector_->spec(), sync);
    monitor_ = std::make_unique<imkd::Monitor>(rig_, detector_->spec());
    imkd::TrackerOptions track;
    track.birth_score = number("birth_score", track.birth_score, 0, 1, "of a detection that begins a track");
    track.confirm_score = number("confirm_score", track.confirm_score, 0, 1, "of a track from which it is published");
    track.max_age = number("track_max_age", track.max_age, 0.01, 60, "s without a detection after which a track ends");
    tracker_ = std::make_unique<imkd::Tracker>(detector_->spec(), track);
    max_latency_ = number("max_latency", 0.2, 0.001, 60, "s of latency above which diagnostics warn");
    max_silence_ = number("max_silence", 1, 0.1, 60, "s without a result above which diagnostics are an error");
    ego_frame_ = text("ego_frame", "base_link", "frame of the vehicle: of the rig, the odometry and the boxes");
    RCLCPP_INFO(get_logger(), "runs on %s %s", detector_->device().c_str(), detector_->why_not_cuda().c_str());
  }

  template <class Message, class Push>
  void listen(SensorReport& sensor, Push push) {
    auto receive = [this, &sensor, push](typename Message::ConstSharedPtr message) {
      static constexpr const char* kPushed[] = {"kept", "late", "duplicate", "future", "invalid"};
      ++sensor.messages;
      std::string refusal;
      guarded(
          [&] {
            const imkd::Pushed pushed = push(message, ns_of(message->header.stamp), now_ns());
            if (pushed != imkd::Pushed::kept) refusal = kPushed[static_cast<int>(pushed)];
          },
          [&](const std::string& text, bool) { refusal = text; });
      if (refusal.empty()) return wake_.notify_one();
      if (sensor.refused++ == 0) RCLCPP_WARN(get_logger(), "%s: %s", sensor.topic.c_str(), refusal.c_str());
      sensor.last_refusal = refusal;
    };
    subscriptions_.push_back(create_subscription<Message>(sensor.topic, rclcpp::SensorDataQoS(), std::move(receive)));
  }

  void subscribe() {
    sensors_.resize(rig_.cameras.size() + rig_.radars.size() + 1);  // never again: the callbacks refer to its items
    for (std::size_t i = 0; i < rig_.cameras.size(); ++i) listen_to_camera(static_cast<int>(i), sensors_[i]);
    for (std::size_t i = 0; i < rig_.radars.size(); ++i)
      listen_to_radar(static_cast<int>(i), sensors_[rig_.cameras.size() + i]);
    SensorReport& odometry = sensors_.back();
    odometry.name = "odometry";
    odometry.topic = text("odometry", "", "topic of the odometry; empty: the motion is unknown");
    if (!odometry.topic.empty())
      listen<Odometry>(odometry, [this](const auto& message, std::int64_t time, std::int64_t now) {
        return synchronizer_->push_ego(ego_of(*message, ego_frame_), time, now);
      });
  }

  void listen_to_camera(int camera, SensorReport& sensor) {
    sensor.name = rig_.cameras[camera].name;
    sensor.topic = required("cameras." + sensor.name + ".topic", "topic of the images");
    listen<Image>(sensor, [this, camera](const auto& message, std::int64_t time, std::int64_t now) {
      const imkd::ImageView view = image_view(*message);
      monitor_->observe_camera(camera, view, time, now);
      return synchronizer_->push_camera(camera, view, time, now, message);
    });
  }

  void listen_to_radar(int radar, SensorReport& sensor) {
    sensor.name = rig_.radars[radar].name;
    const std::string key = "radars." + sensor.name + ".";
    sensor.topic = required(key + "topic", "topic of the points");
    RadarFields fields;
    fields.sign = whole(key + "sign", 1, -1, 1, 2, "-1: the velocity is positive when approaching");
    fields.velocity = text(key + "velocity_field", "", "field of the radial velocity; empty: a usual name");
    fields.intensity = text(key + "intensity_field", "", "field of the intensity in dB; empty: a usual name");
    fields.compensated = rig_.radars[radar].velocity == imkd::RadialVelocity::compensated;
    const auto push = [this, radar](std::vector<float> numbers, std::int64_t time, std::int64_t now) {
      const auto points = std::make_shared<const std::vector<float>>(std::move(numbers));
      const imkd::RadarSweep sweep{radar, time, points->data(), static_cast<int>(points->size() / 5), {}};
      monitor_->observe_radar(sweep, now);
      return synchronizer_->push_radar(sweep, now, points);
    };
    const std::string kind = text(key + "message", "PointCloud2", "PointCloud2 or RadarScan");
    if (kind == "PointCloud2")
      listen<PointCloud2>(sensor, [push, fields](const auto& message, std::int64_t time, std::int64_t now) {
        return push(radar_points(*message, fields), time, now);
      });
    else if (kind == "RadarScan")
      listen<RadarScan>(sensor, [push, fields](const auto& message, std::int64_t time, std::int64_t now) {
        return push(scan_points(*message, fields.sign), time, now);
      });
    else
      throw imkd::Error(imkd::Code::spec_bad_value, key + "message is '" + kind + "'", get_name(),
                        "write PointCloud2 or RadarScan");
  }

  // ---- the loop ----
  std::int64_t now_ns() { return now().nanoseconds(); }  // simulated where use_sim_time is set

  void work() {
    while (!stop_) {
      bool done = false;
      guarded([&] { done = detect_newest(); },
              [&](const std::string& text, bool device_failed) { fail(text, device_failed); });
      if (done) continue;
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, std::chrono::milliseconds(5));
    }
  }

  // False where no frame is ready.
  bool detect_newest() {
    std::optional<imkd::LiveFrame> frame;
    while (auto next = synchronizer_->pop(now_ns())) {  // behind: only the newest frame is of use
      if (frame) ++skipped_;
      frame = std::move(next);
    }
    if (frame) detect(*frame);
    return frame.has_value();
  }

  void fail(const std::string& text, bool device_failed) {
    RCLCPP_ERROR(get_logger(), "%s", text.c_str());
    {
      const std::lock_guard lock(mutex_);
      report_.fault = text;
    }
    if (!device_failed) return;
    failed_ = stop_ = true;
    rclcpp::shutdown();
  }

  void detect(const imkd::LiveFrame& frame) {
    const imkd::Result& result = detector_->infer(frame.frames);
    const auto name = [&](const imkd::Detection& box) { return detector_->spec().head.classes[box.label].name; };
    std::vector<NamedBox> boxes, tracks;
    for (const imkd::Detection& box : result.detections) boxes.push_back({box, name(box), ""});
    for (const imkd::Track& track : tracker_->update(result))
      if (track.state != imkd::TrackState::tentative)
        tracks.push_back({track.box, name(track.box), std::to_string(track.id)});
    boxes_->publish(boxes_message<Detection3DArray>(boxes, result.timestamp_ns, ego_frame_));
    tracks_->publish(boxes_message<Detection3DArray>(tracks, result.timestamp_ns, ego_frame_));
    markers_->publish(markers_message<MarkerArray>(boxes, result.timestamp_ns, ego_frame_));
    track_markers_->publish(markers_message<MarkerArray>(tracks, result.timestamp_ns, ego_frame_));
    const std::lock_guard lock(mutex_);
    report_.health = result.health;
    report_.has_result = true;
    report_.fault.clear();
    last_result_ns_ = now_ns();
    report_.latencies_s.push_back(seconds_of(last_result_ns_ - result.timestamp_ns));
    report_.infer_s.push_back(1e-6 * result.total_us);
  }

  // ---- diagnostics, once a second ----
  DetectorReport take_report() {
    const std::lock_guard lock(mutex_);
    DetectorReport report = report_;
    report_.latencies_s.clear();
    report_.infer_s.clear();
    report.silence = seconds_of(now_ns() - last_result_ns_);
    return report;
  }

  void report() {
    DetectorReport report = take_report();
    report.max_silence = max_silence_;
    report.max_latency = max_latency_;
    const imkd::SynchronizerCounts counts = synchronizer_->counts();
    report.values = {{"frames complete", std::to_string(counts.complete)},
                     {"frames incomplete", std::to_string(counts.incomplete)},
                     {"frames skipped", std::to_string(skipped_)},
                     {"frames dropped", std::to_string(counts.dropped + counts.expired)},
                     {"restarts", std::to_string(counts.restarts)}};
    const imkd::Health health = monitor_->check(now_ns());
    DiagnosticArray array;
    array.header = header_of<decltype(array.header)>(now_ns(), "");
    array.status.push_back(status_of<DiagnosticStatus>(report, get_name()));
    for (std::size_t i = 0; i + 1 < sensors_.size(); ++i) {
      const std::size_t cameras = health.cameras.size();
      sensors_[i].state = i < cameras ? health.cameras[i] : health.radars[i - cameras];
      array.status.push_back(status_of<DiagnosticStatus>(sensors_[i], get_name()));
    }
    if (!sensors_.back().topic.empty()) {
      const imkd::MotionSource motion = report.health.ego_motion;
      const bool used = motion == imkd::MotionSource::poses || motion == imkd::MotionSource::twist;
      sensors_.back().state = used ? imkd::SensorState::ok : imkd::SensorState::missing;
      array.status.push_back(status_of<DiagnosticStatus>(sensors_.back(), get_name()));
    }
    diagnostics_->publish(array);
  }

  imkd::SensorRig rig_;
  std::string ego_frame_;
  double max_latency_ = 0, max_silence_ = 0;
  std::unique_ptr<imkd::Detector> detector_;
  std::unique_ptr<imkd::Synchronizer> synchronizer_;
  std::unique_ptr<imkd::Monitor> monitor_;
  std::unique_ptr<imkd::Tracker> tracker_;  // used by the worker alone
  std::vector<SensorReport> sensors_;       // cameras, radars, odometry; used by the callbacks alone
  std::vector<rclcpp::SubscriptionBase::SharedPtr> subscriptions_;
  rclcpp::Publisher<Detection3DArray>::SharedPtr boxes_, tracks_;
  rclcpp::Publisher<MarkerArray>::SharedPtr markers_, track_markers_;
  rclcpp::Publisher<DiagnosticArray>::SharedPtr diagnostics_;
  rclcpp::TimerBase::SharedPtr timer_;
  std::mutex mutex_;  // of report_
  std::condition_variable wake_;
  DetectorReport report_;
  std::atomic<std::int64_t> last_result_ns_{0}, skipped_{0};
  std::atomic<bool> stop_{false}, failed_{false};
  std::thread worker_;
};

}  // namespace imkd_ros

int main(int argc, char** argv) {
  rclcpp::init(argc, argv);
  int code = 0;
  try {
    const auto node = std::make_shared<imkd_ros::DetectorNode>();
    rclcpp::spin(node);
    code = node->failed() ? 4 : 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    code = 4;
  }
  rclcpp::shutdown();
  return code;
}
