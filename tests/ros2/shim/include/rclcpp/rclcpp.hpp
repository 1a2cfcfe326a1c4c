// A stand-in for rclcpp over rcl, for tests: the names that cpp/ros2/node.cpp uses, with the meaning they have there.
// Messages are polled every millisecond; there is no simulated time.
#pragma once
#include <rcl/arguments.h>
#include <rcl/error_handling.h>
#include <rcl/rcl.h>
#include <rcl_yaml_param_parser/parser.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <rcl_interfaces/msg/parameter_descriptor.hpp>
#include <rosidl_typesupport_cpp/message_type_support.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#define SHIM_LOG(level, logger, ...)                                                                     \
  (std::fprintf(stderr, "[%s] [%s]: ", level, (logger).name.c_str()), std::fprintf(stderr, __VA_ARGS__), \
   std::fputc('\n', stderr))
#define RCLCPP_INFO(logger, ...) SHIM_LOG("INFO", logger, __VA_ARGS__)
#define RCLCPP_WARN(logger, ...) SHIM_LOG("WARN", logger, __VA_ARGS__)
#define RCLCPP_ERROR(logger, ...) SHIM_LOG("ERROR", logger, __VA_ARGS__)

namespace rclcpp {

inline void check(rcl_ret_t result, const std::string& what) {
  if (result == RCL_RET_OK) return;
  const std::string text = what + ": " + rcl_get_error_string().str;
  rcl_reset_error();
  throw std::runtime_error(text);
}

inline rcl_context_t& context() {
  static rcl_context_t one = rcl_get_zero_initialized_context();
  return one;
}
inline std::atomic<bool>& running() {
  static std::atomic<bool> yes{false};
  return yes;
}

inline void init(int argc, char** argv) {
  rcl_init_options_t options = rcl_get_zero_initialized_init_options();
  check(rcl_init_options_init(&options, rcl_get_default_allocator()), "init options");
  check(rcl_init(argc, argv, &options, &context()), "init");
  running() = true;
  for (const int number : {SIGINT, SIGTERM}) std::signal(number, [](int) { running() = false; });
}
inline bool ok() { return running(); }
inline void shutdown() { running() = false; }

struct Logger {
  std::string name;
};

struct Time {
  std::int64_t ns;
  std::int64_t nanoseconds() const { return ns; }
};

struct QoS {
  explicit QoS(std::size_t depth) : profile(rmw_qos_profile_default) { profile.depth = depth; }
  rmw_qos_profile_t profile;
};
struct SensorDataQoS : QoS {
  SensorDataQoS() : QoS(5) { profile = rmw_qos_profile_sensor_data; }
};

struct SubscriptionBase {
  using SharedPtr = std::shared_ptr<SubscriptionBase>;
  virtual ~SubscriptionBase() = default;
  virtual void poll() = 0;
};

template <class Message>
struct Subscription : SubscriptionBase {
  rcl_subscription_t handle = rcl_get_zero_initialized_subscription();
  std::function<void(std::shared_ptr<const Message>)> callback;
  void poll() override {
    for (;;) {
      auto message = std::make_shared<Message>();
      const rcl_ret_t result = rcl_take(&handle, message.get(), nullptr, nullptr);
      if (result == RCL_RET_SUBSCRIPTION_TAKE_FAILED) return rcl_reset_error();
      check(result, "take");
      callback(message);
    }
  }
};

template <class Message>
struct Publisher {
  using SharedPtr = std::shared_ptr<Publisher>;
  rcl_publisher_t handle = rcl_get_zero_initialized_publisher();
  void publish(const Message& message) { check(rcl_publish(&handle, &message, nullptr), "publish"); }
};

struct TimerBase {
  using SharedPtr = std::shared_ptr<TimerBase>;
  std::chrono::steady_clock::duration period;
  std::chrono::steady_clock::time_point due;
  std::function<void()> callback;
};

struct ParameterValue {
  const rcl_variant_t* variant;
};

// The parameters of the command line and of its files.
struct Parameters {
  std::map<std::string, ParameterValue> overrides;
  const std::map<std::string, ParameterValue>& get_parameter_overrides() const { return overrides; }
  void read(const std::string& node) {
    rcl_params_t* all = nullptr;  // kept until the process ends
    check(rcl_arguments_get_param_overrides(&context().global_arguments, &all), "parameters");
    for (std::size_t n = 0; all && n < all->num_nodes; ++n) {
      const std::string name = all->node_names[n];
      if (name != "/**" && name != node && name != "/" + node) continue;
      for (std::size_t i = 0; i < all->params[n].num_params; ++i)
        overrides[all->params[n].parameter_names[i]] = {&all->params[n].parameter_values[i]};
    }
  }
};

inline bool read(const rcl_variant_t& value, std::string& out) {
  return value.string_value && (out = value.string_value, true);
}
inline bool read(const rcl_variant_t& value, double& out) {
  return value.double_value && (out = *value.double_value, true);
}
inline bool read(const rcl_variant_t& value, std::int64_t& out) {
  return value.integer_value && (out = *value.integer_value, true);
}

inline bool in_range(const std::string&, const rcl_interfaces::msg::ParameterDescriptor&) { return true; }
inline bool in_range(double value, const rcl_interfaces::msg::ParameterDescriptor& descriptor) {
  for (const auto& range : descriptor.floating_point_range)
    if (!(value >= range.from_value && value <= range.to_value)) return false;
  return true;
}
inline bool in_range(std::int64_t value, const rcl_interfaces::msg::ParameterDescriptor& descriptor) {
  for (const auto& range : descriptor.integer_range)
    if (value < range.from_value || value > range.to_value ||
        (range.step && (value - range.from_value) % static_cast<std::int64_t>(range.step)))
      return false;
  return true;
}

class Node {
 public:
  explicit Node(const std::string& name) : name_(name) {
    rcl_node_options_t options = rcl_node_get_default_options();
    check(rcl_node_init(&node_, name.c_str(), "", &context(), &options), "node");
    parameters_.read(name);
    declared_["use_sim_time"] = true;
  }
  virtual ~Node() = default;

  template <class T>
  T declare_parameter(const std::string& name, const T& fallback,
                      const rcl_interfaces::msg::ParameterDescriptor& descriptor) {
    declared_[name] = true;
    T value = fallback;
    const auto given = parameters_.overrides.find(name);
    if (given != parameters_.overrides.end() && !read(*given->second.variant, value))
      throw std::runtime_error("parameter '" + name + "' has invalid type");
    if (!in_range(value, descriptor)) throw std::runtime_error("parameter '" + name + "' is out of range");
    return value;
  }
  bool has_parameter(const std::string& name) const { return declared_.count(name) != 0; }
  const Parameters* get_node_parameters_interface() const { return &parameters_; }

  template <class Message, class Callback>
  std::shared_ptr<Subscription<Message>> create_subscription(const std::string& topic, const QoS& qos,
                                                             Callback callback) {
    auto one = std::make_shared<Subscription<Message>>();
    one->callback = callback;
    rcl_subscription_options_t options = rcl_subscription_get_default_options();
    options.qos = qos.profile;
    const auto* type = rosidl_typesupport_cpp::get_message_type_support_handle<Message>();
    check(rcl_subscription_init(&one->handle, &node_, type, topic.c_str(), &options), "subscription");
    subscriptions_.push_back(one);
    return one;
  }

  template <class Message>
  std::shared_ptr<Publisher<Message>> create_publisher(const std::string& topic, const QoS& qos) {
    auto one = std::make_shared<Publisher<Message>>();
    rcl_publisher_options_t options = rcl_publisher_get_default_options();
    options.qos = qos.profile;
    const auto* type = rosidl_typesupport_cpp::get_message_type_support_handle<Message>();
    check(rcl_publisher_init(&one->handle, &node_, type, topic.c_str(), &options), "publisher");
    return one;
  }

  template <class Period>
  TimerBase::SharedPtr create_wall_timer(Period period, std::function<void()> callback) {
    timers_.push_back(std::make_shared<TimerBase>());
    *timers_.back() = {period, std::chrono::steady_clock::now() + period, std::move(callback)};
    return timers_.back();
  }

  Time now() const { return {std::chrono::nanoseconds(std::chrono::system_clock::now().time_since_epoch()).count()}; }
  Logger get_logger() const { return {name_}; }
  const char* get_name() const { return name_.c_str(); }

  void poll() {
    for (const auto& one : subscriptions_) one->poll();
    for (const auto& timer : timers_) {
      if (std::chrono::steady_clock::now() < timer->due) continue;
      timer->due += timer->period;
      timer->callback();
    }
  }

 private:
  std::string name_;
  rcl_node_t node_ = rcl_get_zero_initialized_node();
  Parameters parameters_;
  std::map<std::string, bool> declared_;
  std::vector<SubscriptionBase::SharedPtr> subscriptions_;
  std::vector<TimerBase::SharedPtr> timers_;
};

inline void spin(const std::shared_ptr<Node>& node) {
  for (; ok(); std::this_thread::sleep_for(std::chrono::milliseconds(1))) node->poll();
}

}  // namespace rclcpp
