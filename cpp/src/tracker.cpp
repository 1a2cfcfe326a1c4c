#include "imkd/tracker.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "assignment.hpp"
#include "imkd/ego_motion.hpp"
#include "live_options.hpp"
#include "odometry.hpp"
#include "time_ns.hpp"
#include "track_object.hpp"

namespace imkd {
namespace {

constexpr float kMaxNumber = 1e5F;    // m and rad, of a detection
constexpr double kGate = 3.0;         // standard deviations of the distance
constexpr double kDeathScore = 0.02;  // a track below it ends
constexpr double kScoreFall = 1.0;    // s in which the score of a coasting track falls to 1 / e

double heading_of(const Mat4& T) { return std::atan2(T[4], T[0]); }

bool is_valid(const Detection& d, std::size_t classes) {
  for (const float x : {d.x, d.y, d.z, d.length, d.width, d.height, d.yaw})
    if (!(std::abs(x) <= kMaxNumber)) return false;  // NaN too
  return d.length > 0 && d.width > 0 && d.height > 0 && d.score >= 0 && d.score <= 1 && d.label >= 0 &&
         static_cast<std::size_t>(d.label) < classes;
}

void check(double value, double least, double most, const std::string& name, const std::string& allowed) {
  if (!(value >= least && value <= most)) refuse_option(name, value, allowed);
}

std::vector<ClassMotion> motions_of(const ModelSpec& spec, const TrackerOptions& options) {
  std::vector<ClassMotion> motions;
  for (const ClassSpec& one : spec.head.classes) motions.push_back(class_motion(one.name));
  for (const ClassMotion& one : options.classes) {
    const auto same = [&](const ClassMotion& m) { return m.name == one.name; };
    const auto motion = std::find_if(motions.begin(), motions.end(), same);
    const std::string where = "TrackerOptions::classes[\"" + one.name + "\"]";
    if (motion == motions.end())
      throw Error(Code::spec_bad_value, "the model has no such class", where, "use the name of a class of the spec");
    if (std::count_if(options.classes.begin(), options.classes.end(), same) > 1)
      throw Error(Code::spec_bad_value, "the class is there twice", where, "leave one of them out");
    for (const double value : {one.position_std, one.velocity_std, one.speed_std, one.acceleration})
      check(value, 1e-3, 1e3, where, "0.001 to 1000");
    *motion = one;
  }
  return motions;
}

}  // namespace

struct Tracker::State {
  TrackerOptions options;
  std::vector<ClassMotion> motions;  // by label
  std::size_t max_detections;
  Odometry odometry;
  bool started = false;
  std::int64_t now_ns = 0, next_id = 1;
  TrackerHealth health;
  std::vector<TrackObject> objects;       // by id
  std::vector<Observation> observations;  // in the order of the detections
  std::vector<Track> tracks;
  // of the class that is being assigned
  std::vector<std::size_t> class_objects, class_observations;
  std::vector<double> gates;  // by object of the class, m
  std::vector<char> taken;    // by observation
  Assignment assignment;

  State(const ModelSpec& spec, const TrackerOptions& values)
      : options(values),
        motions(motions_of(spec, values)),
        max_detections(static_cast<std::size_t>(spec.head.max_detections)),
        assignment(std::max(max_detections, static_cast<std::size_t>(values.max_tracks))) {
    const auto max_tracks = static_cast<std::size_t>(options.max_tracks);
    objects.reserve(max_tracks);
    tracks.reserve(max_tracks);
    observations.reserve(max_detections);
    class_objects.reserve(max_tracks);
    class_observations.reserve(max_detections);
    gates.reserve(max_tracks);
    taken.reserve(max_detections);
  }

  void restart() {
    health.restarts += started;
    objects.clear();
    odometry.reset();
  }

  // Extrapolates the objects to the frame, or restarts.
  void advance(const Result& result) {
    const double seconds = seconds_between(now_ns, result.timestamp_ns);
    const bool in_time = started && seconds > 0 && seconds <= options.max_gap;
    if (!in_time) restart();
    Odometry::Step step = odometry.advance(result.timestamp_ns, result.ego);
    if (in_time && step != (health.over_ground ? Odometry::Step::motion : Odometry::Step::none)) {
      restart();
      step = odometry.advance(result.timestamp_ns, result.ego);
    }
    health.over_ground = step != Odometry::Step::none;
    started = true;
    now_ns = result.timestamp_ns;
    for (TrackObject& object : objects) {
      object.predict(motions[static_cast<std::size_t>(object.label)], seconds);
      object.score *= std::exp(-seconds / kScoreFall);
    }
  }

  void read(const std::vector<Detection>& detections) {
    const Mat4& T = odometry.T_odom_ego();
    const double heading = heading_of(T);
    observations.clear();
    for (std::size_t i = 0; i < detections.size(); ++i) {
      const Detection& d = detections[i];
      if (!is_valid(d, motions.size())) {
        ++health.detections_invalid;
      } else if (observations.size() == max_detections) {
        ++health.detections_overflow;
      } else {
        const Vec3 centre = transform(T, {d.x, d.y, d.z}), velocity = rotate(T, {d.vx, d.vy, 0});
        const bool has_velocity =
            health.over_ground && std::abs(d.vx) <= kMaxVelocity && std::abs(d.vy) <= kMaxVelocity;
        observations.push_back({static_cast<int>(i),
                                d.label,
                                d.score,
                                {centre[0], centre[1]},
                                {velocity[0], velocity[1]},
                                has_velocity,
                                centre[2],
                                wrapped(d.yaw + heading),
                                {d.length, d.width, d.height}});
      }
    }
  }

  double gate_of(const TrackObject& object, const ClassMotion& motion) const {
    return kGate * std::sqrt(object.motion.pp + square(motion.position_std));
  }

  // Of the class's objects and observations: the distance minus the widest gate, so that a pair's cost depends on its
  // distance alone; 0 beyond the object's own gate.
  double cost_of(std::size_t row, std::size_t column, double widest) const {
    const std::array<double, 2>& position = objects[class_objects[row]].motion.position;
    const std::array<double, 2>& other = observations[class_observations[column]].position;
    // Not hypot, which costs more than all the rest of the frame and differs between libraries.
    const double distance = std::sqrt(square(other[0] - position[0]) + square(other[1] - position[1]));
    return distance < gates[row] ? distance - widest : 0;
  }

  void assign(int label) {
    class_objects.clear();
    class_observations.clear();
    for (std::size_t i = 0; i < objects.size(); ++i)
      if (objects[i].label == label) class_objects.push_back(i);
    for (std::size_t i = 0; i < observations.size(); ++i)
      if (observations[i].label == label) class_observations.push_back(i);
    if (class_objects.empty() || class_observations.empty()) return;

    const ClassMotion& motion = motions[static_cast<std::size_t>(label)];
    gates.clear();
    for (const std::size_t i : class_objects) gates.push_back(gate_of(objects[i], motion));
    const double widest = *std::max_element(gates.begin(), gates.end());
    const auto cost = [&](std::size_t row, std::size_t column) { return cost_of(row, column, widest); };
    const std::vector<int>& column_of_row = assignment.solve(cost, class_objects.size(), class_observations.size());
    for (std::size_t row = 0; row < class_objects.size(); ++row) {
      if (column_of_row[row] < 0) continue;
      const auto column = static_cast<std::size_t>(column_of_row[row]);
      if (cost(row, column) >= 0) continue;
      TrackObject& object = objects[class_objects[row]];
      const Observation& o = observations[class_observations[column]];
      object.observe(o, motion);
      object.count(o, motion, now_ns);
      taken[class_observations[column]] = 1;
    }
  }

  void end_objects() {
    const auto ended = [&](const TrackObject& object) {
      return object.score < kDeathScore || seconds_between(object.last_ns, now_ns) > options.max_age;
    };
    objects.erase(std::remove_if(objects.begin(), objects.end(), ended), objects.end());
  }

  void begin_objects() {
    for (std::size_t i = 0; i < observations.size(); ++i) {
      const Observation& o = observations[i];
      if (taken[i] || o.score < options.birth_score) continue;
      if (objects.size() == static_cast<std::size_t>(options.max_tracks)) {
        ++health.detections_overflow;
        continue;
      }
      const ClassMotion& motion = motions[static_cast<std::size_t>(o.label)];
      TrackObject object;
      object.id = next_id++;
      object.first_ns = now_ns;
      object.begin(o, motion);
      object.count(o, motion, now_ns);
      objects.push_back(object);
    }
  }

  Track track_of(const TrackObject& object, const Mat4& T_ego_odom, double heading) const {
    constexpr float kUnknown = std::numeric_limits<float>::quiet_NaN();
    const Vec3 centre = transform(T_ego_odom, {object.motion.position[0], object.motion.position[1], object.z.value});
    const Vec3 velocity = rotate(T_ego_odom, {object.motion.velocity[0], object.motion.velocity[1], 0});
    const bool known = object.velocity_measured || object.hits > 1;
    Track track;
    track.id = object.id;
    track.state = !object.confirmed      ? TrackState::tentative
                  : object.detection < 0 ? TrackState::coasting
                                         : TrackState::confirmed;
    track.box = {static_cast<float>(centre[0]),
                 static_cast<float>(centre[1]),
                 static_cast<float>(centre[2]),
                 static_cast<float>(object.size[0].value),
                 static_cast<float>(object.size[1].value),
                 static_cast<float>(object.size[2].value),
                 yaw_of(object.yaw.value + heading),
                 known ? static_cast<float>(velocity[0]) : kUnknown,
                 known ? static_cast<float>(velocity[1]) : kUnknown,
                 static_cast<float>(object.score),
                 object.label};
    track.velocity_measured = object.velocity_measured;
    track.velocity_std = static_cast<float>(std::sqrt(std::max(object.motion.vv, 0.0)));
    track.age = static_cast<float>(seconds_between(object.first_ns, now_ns));
    track.coasting = static_cast<float>(seconds_between(object.last_ns, now_ns));
    track.hits = object.hits;
    track.detection = object.detection;
    return track;
  }

  void publish() {
    const Mat4 T_ego_odom = inverse_rigid(odometry.T_odom_ego());
    const double heading = heading_of(T_ego_odom);
    tracks.clear();
    for (TrackObject& object : objects) {
      object.confirmed |= object.score >= options.confirm_score;
      tracks.push_back(track_of(object, T_ego_odom, heading));
    }
  }
};

Tracker::Tracker(const ModelSpec& spec, const TrackerOptions& options) {
  spec.check();
  check(options.birth_score, 0, 1, "birth_score", "0 to 1");
  check(options.confirm_score, 0, 1, "confirm_score", "0 to 1");
  check(options.max_age, 0, 60, "max_age", "0 to 60 s");
  check(options.max_gap, 1e-3, 60, "max_gap", "0.001 to 60 s");
  check(options.max_tracks, 1, 4096, "max_tracks", "1 to 4096");
  state_ = std::make_unique<State>(spec, options);
}

Tracker::~Tracker() = default;
Tracker::Tracker(Tracker&&) noexcept = default;
Tracker& Tracker::operator=(Tracker&&) noexcept = default;

const std::vector<Track>& Tracker::update(const Result& result) {
  State& s = *state_;
  s.health.detections_invalid = s.health.detections_overflow = 0;
  if (s.started && result.timestamp_ns == s.now_ns) {
    ++s.health.repeats;
    for (Track& track : s.tracks) track.detection = -1;  // the indices are of the frame before
    return s.tracks;
  }
  s.advance(result);
  s.read(result.detections);
  s.taken.assign(s.observations.size(), 0);
  for (std::size_t label = 0; label < s.motions.size(); ++label) s.assign(static_cast<int>(label));
  s.end_objects();
  s.begin_objects();
  s.publish();
  return s.tracks;
}

const TrackerHealth& Tracker::health() const { return state_->health; }

void Tracker::reset() {
  State& s = *state_;
  s.objects.clear();
  s.tracks.clear();
  s.odometry.reset();
  s.started = false;
}

}  // namespace imkd
