// Contract: what a bundle was trained on, and which of its outputs were trained. Rig and data are compared with it;
// what differs is a warning in Health::warnings.
#pragma once
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "imkd/geometry.hpp"
#include "imkd/rig.hpp"
#include "imkd/spec.hpp"

namespace imkd {

// How far rig and data may leave the contract's ranges without a warning. The only home of these limits.
constexpr double kFieldOfViewMargin = 10;  // degrees
constexpr double kResolutionFactor = 2;    // of width and height, px
constexpr double kMountingMargin = 0.4;    // m, of a sensor's height above the ground plane
constexpr double kIntensityMargin = 3;     // dB, of the median of a frame's points
constexpr double kIntensityFar = 10;       // dB; beyond it the warning begins with the first frame
constexpr double kPointsFactor = 3;        // of the mean number of points a sweep
constexpr int kFramesToChange = 3;         // consecutive frames that begin or end a warning about data
constexpr int kFewestPoints = 8;           // of a frame; the median of fewer says nothing

enum class IntensityUnit { unknown, rcs_dbsm, snr_db, magnitude_db };
enum class Traffic { unknown, right, left };  // the side of the road that vehicles drive on

using Range = std::array<double, 2>;  // smallest and largest
using CountRange = std::array<int, 2>;

struct CamerasContract {
  CountRange number{};           // cameras of a rig
  Range field_of_view{};         // degrees, horizontal, of the raw image
  CountRange width{}, height{};  // px, of the raw image
  std::vector<Distortion> lenses;
  Range mounting{};  // m, height above the ground plane
};

struct RadarsContract {
  CountRange number{};  // radars of a rig
  std::vector<RadialVelocity> velocity;
  IntensityUnit unit = IntensityUnit::unknown;
  Range intensity{};  // dB, quantiles 1 % and 99 % of the points
  Range points{};     // valid points of a sweep, quantiles 1 % and 99 %
  double rate = 0;    // sweeps of a radar a second; 0: unknown
  Range mounting{};   // m, height above the ground plane
};

struct ClassContract {
  std::string name;
  int objects = 0;  // labels of the training split
  Vec3 size{};      // median length, width, height m; 0 without an object
  // m, of each side; left out without an object, and in bundles older than these members
  std::optional<Vec3> smallest{}, largest{};
};

struct TrainedOutputs {
  bool velocity = false;  // false: Detection::vx and vy are NaN
};

struct Contract {
  std::string data;  // kind and split of the training data
  int frames = 0;    // of the split, on which it was measured
  CamerasContract cameras;
  RadarsContract radars;
  std::vector<ClassContract> classes;  // those of the spec, in its order
  Traffic traffic = Traffic::unknown;
  bool ground_plane = false;  // a rig named one other than z = 0
  TrainedOutputs trained;

  std::string to_json() const;                         // canonical
  static Contract from_json(const std::string& text);  // throws Error 402, 403, 404, 410; strict about keys and ranges
  void check() const;                                  // throws Error bundle_bad_value
  void check(const ModelSpec& spec) const;             // as check(), and that the classes are the spec's
};

}  // namespace imkd
