#include "imkd/spec.hpp"

#include <cmath>
#include <set>

#include "json.hpp"
#include "number_text.hpp"

namespace imkd {
namespace {

constexpr int kMaxSide = 8192;                // pixels of an image, cells of a grid
constexpr double kMaxElements = 2147483647.;  // every tensor is indexed by int32
constexpr double kMinBoxSize = 0.01;          // m, of the upper limit of length, width or height
constexpr double kMaxBoxSize = 1000.;         // m, of either limit

[[noreturn]] void bad(const std::string& where, const std::string& what, const std::string& fix = {}) {
  throw Error(Code::spec_bad_value, what, where, fix);
}

std::string show(double value) { return std::isfinite(value) ? json::write(value).dump() : number_text(value, 6); }

template <class T>
void in_range(const std::string& where, T value, T low, T high) {
  if (!(value >= low && value <= high))
    bad(where, show(value) + " is out of range", "from " + show(low) + " to " + show(high));
}

void finite(const std::string& where, double value) {
  if (!std::isfinite(value)) bad(where, show(value) + " is not finite", "give a finite number");
}

std::string item(const char* list, std::size_t i) { return std::string(list) + "[" + std::to_string(i) + "]"; }

void rising(const std::string& where, double low, double high) {
  finite(where, low);
  finite(where, high);
  if (!(low < high)) bad(where, show(low) + " is not below the maximum, " + show(high), "the minimum must be smaller");
}

// length / unit, which must be a whole number.
int times(const std::string& where, double length, double unit) {
  if (!(unit > 0) || !std::isfinite(unit))
    bad(where, show(unit) + " is not above 0", "give a finite number of m above 0");
  const double ratio = length / unit;
  const double whole = std::round(ratio);
  if (!(whole >= 1 && whole <= kMaxSide)) bad(where, show(ratio) + " cells on a side", "from 1 to " + show(kMaxSide));
  if (std::abs(ratio - whole) > 1e-6 * whole)
    bad(where, show(unit) + " m does not divide " + show(length) + " m", "the quotient must be a whole number");
  return static_cast<int>(whole);
}

void check_grid(const GridSpec& grid, const RadarSpec& radar) {
  grid.check();
  times("radar.cell", grid.cell, radar.cell);
  times("radar.cell", grid.x_max - grid.x_min, radar.cell);
  times("radar.cell", grid.y_max - grid.y_min, radar.cell);
}

void check_radar(const RadarSpec& radar) {
  in_range("radar.max_points", radar.max_points, 1, 10000000);
  in_range("radar.max_age", radar.max_age, 1e-3, 3600.);
  in_range("radar.features", static_cast<int>(radar.features.size()), 1, kMaxFeatures);
  for (std::size_t i = 0; i < radar.features.size(); ++i) {
    const std::string where = item("radar.features", i);
    check_known(radar.features[i].statistic, Code::spec_bad_value, where + ".statistic");
    finite(where + ".offset", radar.features[i].offset);
    finite(where + ".scale", radar.features[i].scale);
    if (radar.features[i].scale == 0) bad(where + ".scale", "is 0", "give another number, or remove the feature");
  }
}

// Limits of length, width and height of the boxes of a class.
void check_limits(const ClassSpec& spec, const std::string& where) {
  for (int i = 0; i < 3; ++i) {
    const std::string side = "[" + std::to_string(i) + "]";
    if (spec.min_size) in_range(where + ".min_size" + side, (*spec.min_size)[i], 0., kMaxBoxSize);
    if (spec.max_size) in_range(where + ".max_size" + side, (*spec.max_size)[i], kMinBoxSize, kMaxBoxSize);
    if (spec.min_size && spec.max_size) rising(where + ".min_size" + side, (*spec.min_size)[i], (*spec.max_size)[i]);
  }
}

void check_head(const HeadSpec& head) {
  in_range("head.classes", static_cast<int>(head.classes.size()), 1, kMaxClasses);
  std::set<std::string> names;
  std::set<int> groups;
  for (std::size_t i = 0; i < head.classes.size(); ++i) {
    const std::string where = item("head.classes", i);
    if (head.classes[i].name.empty()) bad(where + ".name", "is empty", "give the class a name");
    if (!names.insert(head.classes[i].name).second)
      bad(where + ".name", "\"" + head.classes[i].name + "\" is the name of two classes", "rename one");
    in_range(where + ".group", head.classes[i].group, 0, kMaxClasses - 1);
    groups.insert(head.classes[i].group);
    in_range(where + ".nms_radius", head.classes[i].nms_radius, 0., 1000.);
    check_limits(head.classes[i], where);
  }
  if (static_cast<int>(groups.size()) != head.groups())
    bad("head.classes", "a group below " + std::to_string(head.groups()) + " has no class",
        "number the groups 0, 1, 2, ...");
  in_range("head.score_threshold", head.score_threshold, kMinScore, kMaxScore);
  in_range("head.max_candidates", head.max_candidates, 1, 100000);
  in_range("head.max_detections", head.max_detections, 1, 100000);
}

void check_history(const HistorySpec& history) {
  in_range("history.frames", history.frames, 0, 16);
  in_range("history.interval", history.interval, 1e-3, 60.);
  if (history.frames == 0 && history.channels != 0)
    bad("history.channels", std::to_string(history.channels) + " channels without history frames", "write 0");
  if (history.frames > 0) in_range("history.channels", history.channels, 1, 8192);
}

void check_sizes(const ModelSpec& s) {
  const double pixels = double(s.image.feature_width()) * s.image.feature_height() * s.cameras;
  const double cells = double(s.grid.width()) * s.grid.height();
  if (pixels * s.depth.bins > kMaxElements)
    bad("depth.bins", "more than 2^31 - 1 frustum points", "fewer bins, cameras or feature pixels");
  if (pixels * s.context_channels > kMaxElements)
    bad("context_channels", "the context tensor has more than 2^31 - 1 elements", "fewer channels or feature pixels");
  if (pixels * s.image.stride * s.image.stride * 3 > kMaxElements)
    bad("image.width", "the image tensor has more than 2^31 - 1 elements", "smaller images or fewer cameras");
  if (cells * (s.context_channels + 1) > kMaxElements)
    bad("grid.cell", "the BEV tensor has more than 2^31 - 1 elements", "larger cells or fewer channels");
  if (cells * s.head.classes.size() > kMaxElements)
    bad("head.classes", "the heatmap has more than 2^31 - 1 elements", "larger cells or fewer classes");
  if (cells * s.head.groups() * kBoxChannels > kMaxElements)
    bad("head.classes", "the box tensor has more than 2^31 - 1 elements", "larger cells or fewer groups");
  if (cells * s.history.channels * (4. * s.history.frames + 1) > kMaxElements)
    bad("history.channels", "the stored maps have more than 2^31 - 1 elements", "fewer channels or frames");
  if (double(s.radar_width()) * s.radar_height() * s.radar.features.size() > kMaxElements)
    bad("radar.cell", "the radar grid has more than 2^31 - 1 elements", "larger cells or fewer features");
}

// Throws Error spec_unknown_key where an object of an older version has a key that came with `since`.
void refuse_key(const json::Json& json, const char* key, const json::At& at, int version, int since) {
  if (json.is_object() && json.contains(key))
    throw Error(Code::spec_unknown_key,
                "version " + std::to_string(version) + " has no key \"" + std::string(key) + "\"", at.key(key).path,
                "write \"version\": " + std::to_string(since));
}

// Adds the keys of version 2 to one of version 1, with their defaults.
void upgrade(json::Json& json, const json::At& root) {
  for (const char* key : {"history", "segmentation"}) refuse_key(json, key, root, 1, 2);
  json["history"] = json::write(ModelSpec{}.history);
  json["segmentation"] = ModelSpec{}.segmentation;
}

// Adds the keys of version 4 to the classes of an older one. They are not exclusive: a bundle gives the boxes that its
// metrics and its golden frame were made with.
void upgrade_classes(json::Json& json, const json::At& root, int version) {
  if (!json.contains("head") || !json["head"].is_object() || !json["head"].contains("classes")) return;
  json::Json& classes = json["head"]["classes"];
  if (!classes.is_array()) return;  // json::read names the fault
  for (std::size_t i = 0; i < classes.size(); ++i) {
    const json::At at = root.key("head").key("classes").item(i);
    for (const char* key : {"exclusive", "min_size", "max_size"}) refuse_key(classes[i], key, at, version, 4);
    if (classes[i].is_object()) classes[i]["exclusive"] = false;
  }
}

// Removes the ground plane, which versions 1 and 2 have and version 4 may have, and returns it.
Vec3 take_plane(json::Json& json, const json::At& root, int version) {
  Vec3 plane{};
  if (!json.contains("ground_plane")) {
    if (version > 2) return plane;
    throw Error(Code::spec_missing_key, "the key \"ground_plane\" is missing", "ground_plane",
                "add it, or write \"version\": " + std::to_string(ModelSpec::kVersion));
  }
  json::read(json["ground_plane"], plane, root.key("ground_plane"));
  json.erase("ground_plane");
  return plane;
}

int cells(double length, double cell) { return static_cast<int>(std::lround(length / cell)); }

}  // namespace

void ImageSpec::check() const {
  in_range("image.stride", stride, 1, 256);
  in_range("image.width", width, 1, kMaxSide);
  in_range("image.height", height, 1, kMaxSide);
  if (width % stride)
    bad("image.width", std::to_string(width) + " is not a multiple of image.stride",
        "use a multiple of " + std::to_string(stride));
  if (height % stride)
    bad("image.height", std::to_string(height) + " is not a multiple of image.stride",
        "use a multiple of " + std::to_string(stride));
  in_range("image.anchor", anchor, 0., 1.);
  for (int c = 0; c < 3; ++c) {
    finite(item("image.mean", c), mean[c]);
    finite(item("image.std", c), std[c]);
    if (!(std[c] > 0))
      bad(item("image.std", c), show(std[c]) + " is not above 0", "give the standard deviation in grey levels");
  }
}

double DepthSpec::edge(double i) const {
  return spacing == DepthSpacing::linear ? min + i * (max - min) / bins : min * std::pow(max / min, i / bins);
}

void GridSpec::check() const {
  rising("grid.x_min", x_min, x_max);
  rising("grid.y_min", y_min, y_max);
  rising("grid.z_min", z_min, z_max);
  times("grid.cell", x_max - x_min, cell);
  times("grid.cell", y_max - y_min, cell);
}

int GridSpec::width() const { return cells(x_max - x_min, cell); }
int GridSpec::height() const { return cells(y_max - y_min, cell); }
int ModelSpec::radar_width() const { return cells(grid.x_max - grid.x_min, radar.cell); }
int ModelSpec::radar_height() const { return cells(grid.y_max - grid.y_min, radar.cell); }

int HeadSpec::groups() const {
  int last = -1;
  for (const ClassSpec& c : classes) last = c.group > last ? c.group : last;
  return last + 1;
}

void ModelSpec::check() const {
  if (name.empty()) bad("name", "is empty", "give the model a name");
  in_range("cameras", cameras, 1, 64);
  image.check();
  rising("depth.min", depth.min, depth.max);
  if (!(depth.min > 0)) bad("depth.min", show(depth.min) + " is not above 0", "give a depth in m above 0");
  in_range("depth.bins", depth.bins, 1, 4096);
  check_known(depth.spacing, Code::spec_bad_value, "depth.spacing");
  in_range("context_channels", context_channels, 1, 8192);
  check_grid(grid, radar);
  for (int i = 0; i < 3; ++i) finite(item("ground_plane", i), legacy_plane[i]);
  check_radar(radar);
  check_head(head);
  check_history(history);
  check_sizes(*this);
}

std::string ModelSpec::to_json() const {
  check();
  json::Json json = json::write(*this);
  if (legacy_plane != Vec3{}) json["ground_plane"] = json::write(legacy_plane);
  json["version"] = kVersion;
  return json::dump(json, json::kSpecCodes);
}

ModelSpec ModelSpec::from_json(const std::string& text) {
  json::Json json = json::parse(text, json::kSpecCodes);
  const json::At root{json::kSpecCodes, ""};
  if (!json.contains("version"))
    throw Error(Code::spec_missing_key, "the key \"version\" is missing", "version",
                "add \"version\": " + std::to_string(kVersion));
  int version = 0;
  json::read(json["version"], version, root.key("version"));
  if (version < 1 || version > kVersion)
    throw Error(Code::spec_version, "version " + std::to_string(version) + " of the spec is not known", "version",
                "this build reads versions 1 to " + std::to_string(kVersion));
  json.erase("version");
  if (version == 1) upgrade(json, root);
  if (version < 4) upgrade_classes(json, root, version);
  ModelSpec spec;
  if (version != 3) spec.legacy_plane = take_plane(json, root, version);
  json::read(json, spec, root);
  spec.check();
  return spec;
}

}  // namespace imkd
