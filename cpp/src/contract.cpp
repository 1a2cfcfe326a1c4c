#include "imkd/contract.hpp"

#include <algorithm>
#include <cmath>

#include "imkd/frames.hpp"
#include "json.hpp"

namespace imkd {
namespace {

constexpr double kMaxMounting = 50;   // m
constexpr double kMaxSize = 1000;     // m
constexpr double kMaxRate = 10000;    // sweeps/s
constexpr double kMaxPoints = 1e9;    // of a sweep
constexpr int kMaxPixels = 1 << 20;   // px
constexpr int kMaxSensors = 1 << 10;  // of a rig

[[noreturn]] void bad(const std::string& where, const std::string& what) {
  throw Error(Code::bundle_bad_value, what, where, "measure it again with imkd-edge contract");
}

std::string text(double value) { return json::Json(value).dump(); }

void check_number(const std::string& where, double value, double low, double high) {
  if (!(value >= low && value <= high))  // a NaN fails both
    bad(where, text(value) + " is out of range, allowed are " + text(low) + " to " + text(high));
}

template <class Numbers>
void check_range(const std::string& where, const Numbers& range, double low, double high) {
  check_number(where + "[0]", range[0], low, high);
  check_number(where + "[1]", range[1], low, high);
  if (range[0] > range[1]) bad(where, "the smallest, " + text(range[0]) + ", is above the largest, " + text(range[1]));
}

template <class Item>
void check_set(const std::string& where, const std::vector<Item>& items, bool needed) {
  if (needed && items.empty()) bad(where, "is empty, though the rigs had such sensors");
  for (std::size_t i = 0; i < items.size(); ++i)
    if (std::count(items.begin(), items.end(), items[i]) > 1) bad(where, "names one kind twice");
}

void check(const CamerasContract& cameras) {
  const std::string at = "cameras.";
  check_range(at + "number", cameras.number, 0, kMaxSensors);
  check_range(at + "field_of_view", cameras.field_of_view, 0, 360);
  check_range(at + "width", cameras.width, 0, kMaxPixels);
  check_range(at + "height", cameras.height, 0, kMaxPixels);
  check_set(at + "lenses", cameras.lenses, cameras.number[1] > 0);
  check_range(at + "mounting", cameras.mounting, -kMaxMounting, kMaxMounting);
}

void check(const RadarsContract& radars) {
  const std::string at = "radars.";
  check_range(at + "number", radars.number, 0, kMaxSensors);
  check_set(at + "velocity", radars.velocity, radars.number[1] > 0);
  check_range(at + "intensity", radars.intensity, -double(kMaxIntensity), double(kMaxIntensity));
  check_range(at + "points", radars.points, 0, kMaxPoints);
  check_number(at + "rate", radars.rate, 0, kMaxRate);
  check_range(at + "mounting", radars.mounting, -kMaxMounting, kMaxMounting);
}

void check(const ClassContract& item, const std::string& at) {
  if (item.name.empty()) bad(at + ".name", "is empty");
  check_number(at + ".objects", item.objects, 0, 1e9);
  for (std::size_t i = 0; i < item.size.size(); ++i) {
    const std::string where = at + ".size[" + std::to_string(i) + "]";
    check_number(where, item.size[i], 0, kMaxSize);
    if (item.objects > 0 && item.size[i] == 0) bad(where, "is 0, though there are objects");
    const std::string side = "[" + std::to_string(i) + "]";
    if (item.smallest) check_number(at + ".smallest" + side, (*item.smallest)[i], 0, item.size[i]);
    if (item.largest) check_number(at + ".largest" + side, (*item.largest)[i], item.size[i], kMaxSize);
  }
}

}  // namespace

void Contract::check() const {
  check_number("frames", frames, 1, 1e9);
  imkd::check(cameras);
  imkd::check(radars);
  if (classes.empty()) bad("classes", "is empty");
  for (std::size_t i = 0; i < classes.size(); ++i) imkd::check(classes[i], "classes[" + std::to_string(i) + "]");
}

void Contract::check(const ModelSpec& spec) const {
  check();
  const auto& known = spec.head.classes;
  const bool same = std::equal(classes.begin(), classes.end(), known.begin(), known.end(),
                               [](const ClassContract& a, const ClassSpec& b) { return a.name == b.name; });
  if (!same) bad("classes", "are not those of the spec, in its order");
}

std::string Contract::to_json() const {
  check();
  return json::dump(json::write(*this), json::kBundleCodes);
}

Contract Contract::from_json(const std::string& text) {
  Contract contract;
  json::read(json::parse(text, json::kBundleCodes), contract, {json::kBundleCodes, ""});
  contract.check();
  return contract;
}

}  // namespace imkd
