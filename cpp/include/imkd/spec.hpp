// ModelSpec: the only home of a model's constants. Training reads it, export writes it into the bundle, the runtime
// reads it from there.
#pragma once
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "imkd/box_channels.hpp"
#include "imkd/geometry.hpp"

namespace imkd {

struct ImageSpec {  // input of the camera network
  int width = 704;  // px
  int height = 256;
  int stride = 16;      // input pixels per feature pixel; divides width and height
  double anchor = 1.0;  // rows of the crop: 0 the top ones, 0.5 the middle, 1 the bottom
  std::array<float, 3> mean{123.675f, 116.28f, 103.53f};  // RGB, grey levels 0..255
  std::array<float, 3> std{58.395f, 57.12f, 57.375f};
  int feature_width() const { return width / stride; }
  int feature_height() const { return height / stride; }
  void check() const;  // throws Error spec_bad_value
};

enum class DepthSpacing { linear, log };

struct DepthSpec {   // bins of camera depth (optical z)
  double min = 2.0;  // m
  double max = 58.0;
  int bins = 70;
  DepthSpacing spacing = DepthSpacing::linear;
  // Bin i covers [edge(i), edge(i+1)); its centre is edge(i + 0.5).
  double edge(double i) const;  // linear: min + i (max-min)/bins; log: min (max/min)^(i/bins)
};

struct GridSpec {        // bird's-eye view in the ego frame; rows run along y, columns along x
  double x_min = -51.2;  // m, half open [min, max)
  double x_max = 51.2;
  double y_min = -51.2;
  double y_max = 51.2;
  double z_min = -5.0;  // m above the ground plane; lifted camera points outside are discarded
  double z_max = 3.0;
  double cell = 0.8;   // m, side of a cell of the BEV features and of the head
  int width() const;   // columns, (x_max - x_min) / cell
  int height() const;  // rows
  void check() const;  // throws Error spec_bad_value
};

// Per-cell statistics of the radar points; z is the height above the ground plane of the rig.
// log_count = ln(1+n); velocity_{x,y}: mean over points of compensated radial velocity times its horizontal direction,
// m/s; phase_{cos,sin}: mean of cos/sin of 2 pi v / period of the compensated aliased velocity (0 for sensors that are
// not aliased); offset_{x,y}: mean position minus the cell's centre, m; age_min: s.
enum class RadarStatistic {
  log_count,
  intensity_max,
  intensity_mean,
  velocity_x,
  velocity_y,
  phase_cos,
  phase_sin,
  z_mean,
  z_min,
  z_max,
  offset_x,
  offset_y,
  age_min
};

// One channel of the radar grid: (statistic - offset) * scale in occupied cells, exactly 0 in empty ones.
struct RadarFeature {
  RadarStatistic statistic = RadarStatistic::log_count;
  float offset = 0.f;
  float scale = 1.f;
};

// Largest numbers of radar channels and of classes in a spec.
constexpr int kMaxFeatures = 256;
constexpr int kMaxClasses = 64;
// Range of a score threshold; at 0 and 1 its logit is infinite.
constexpr double kMinScore = 1e-6;
constexpr double kMaxScore = 1 - 1e-6;

struct RadarSpec {
  double cell = 0.8;       // m; grid.cell is an integer multiple of it
  int max_points = 20000;  // per frame over all sweeps; further points are discarded and counted
  double max_age = 0.6;    // s; older sweeps are discarded, and their radar is stale in health
  std::vector<RadarFeature> features;
};

struct ClassSpec {
  std::string name;
  int group = 0;            // task group; the classes of a group share one set of box channels
  double nms_radius = 1.0;  // m, circle suppression among boxes of this class
  // Of two boxes of exclusive classes, the lower-scored one is suppressed where its centre lies in the footprint of the
  // other. False for objects that stand in others: a rider where bicycles are labelled too, a pallet on a forklift.
  bool exclusive = true;
  // Length, width, height m: a box with a side below or above them is discarded. Left out: any size.
  std::optional<Vec3> min_size{}, max_size{};
};

struct HeadSpec {
  std::vector<ClassSpec> classes;
  double score_threshold = 0.1;
  int max_candidates = 500;  // peaks kept before suppression
  int max_detections = 200;
  int groups() const;  // 1 + largest group
};

struct HistorySpec {      // temporal fusion: the fused BEV maps of past frames that the BEV network reads
  int frames = 0;         // number of maps; 0: none
  double interval = 0.5;  // s between them; the newest is one interval old
  int channels = 0;       // of one map; 0 where frames is 0
};

struct ModelSpec {
  // Read too: version 3, whose classes are not exclusive and have no limits of size; 2, which also has the ground plane
  // of the training vehicle; 1, without history and segmentation.
  static constexpr int kVersion = 4;
  std::string name = "unnamed";
  int cameras = 6;  // batch of the camera network: the largest number of cameras of a rig
  ImageSpec image;
  DepthSpec depth;
  int context_channels = 80;
  GridSpec grid;
  RadarSpec radar;
  HeadSpec head;
  HistorySpec history;
  bool segmentation = false;  // the BEV network also has an output of vehicle logits per cell
  // The ground plane of a rig that names none, of models of versions 1 and 2. to_json writes it where it is not 0.
  Vec3 legacy_plane{0, 0, 0};

  int radar_width() const;  // columns of the radar grid
  int radar_height() const;
  std::string to_json() const;                          // canonical: sorted keys, two spaces, ends in a newline
  static ModelSpec from_json(const std::string& text);  // throws Error 1xx; strict about keys, types and ranges
  void check() const;                                   // throws Error spec_bad_value
};

}  // namespace imkd
