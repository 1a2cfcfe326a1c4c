// Synchronizer, Monitor and Watchdog of imkd_edge.live; sensors are named as in the rig.
#include "common.hpp"
#include "device_array.hpp"
#include "fields.hpp"
#include "imkd/monitor.hpp"
#include "imkd/synchronizer.hpp"
#include "live_fields.hpp"

using namespace imkd;
using namespace imkd::python;

namespace {

int camera_index(const SensorRig& rig, const std::string& name, const char* where) {
  const int camera = rig.camera_index(name);
  if (camera < 0)
    throw Error(Code::frame_unknown_sensor, "the rig has no camera \"" + name + "\"", where,
                "use the name of a camera of the rig");
  return camera;
}

// Holds a Python object. The last copy may be destroyed on any thread.
std::shared_ptr<const void> owner_of(py::object object) {
  return std::shared_ptr<const py::object>(new py::object(std::move(object)), [](const py::object* held) {
    py::gil_scoped_acquire gil;
    delete held;
  });
}

py::object object_of(const std::shared_ptr<const void>& owner) {
  return owner ? *static_cast<const py::object*>(owner.get()) : py::object(py::none());
}

// One imkd_edge.frames.RadarSweep.
Sweeps one_sweep(py::handle sweep, const SensorRig& rig) {
  if (py::hasattr(sweep, "timestamp_ns") && sweep.attr("timestamp_ns").is_none())
    throw Error(Code::frame_bad_time, "is None, but a live sweep needs its own time", "RadarSweep.timestamp_ns",
                "give an int, nanoseconds");
  return radar_sweeps(py::make_tuple(sweep), rig, 0, Values::as_given);
}

// Every method holds the GIL. The core runs no Python code under its lock, so a thread waits for that lock at most as
// long as one call takes.
struct PySynchronizer {
  SensorRig rig;
  Synchronizer core;

  std::string push_camera(const std::string& name, const py::object& image, py::handle time, py::handle now) {
    const std::string where = "image of camera \"" + name + "\"";
    const int camera = camera_index(rig, name, "push_camera");
    if (image.is_none()) throw Error(Code::frame_bad_dtype, "is None", where, "push nothing where there is no image");
    std::vector<py::object> planes;
    const ImageView view = any_image(image, where, {true, nullptr, {}}, planes);
    return enum_name(core.push_camera(camera, view, timestamp(time, "timestamp_ns"), timestamp(now, "now_ns"),
                                      owner_of(py::make_tuple(image, py::cast(planes)))));
  }

  std::string push_radar(py::handle sweep, py::handle now) {
    const Sweeps sweeps = one_sweep(sweep, rig);
    return enum_name(core.push_radar(sweeps.views[0], timestamp(now, "now_ns"), owner_of(sweeps.points[0])));
  }

  std::string push_ego(py::handle ego, py::handle time, py::handle now) {
    return enum_name(
        core.push_ego(ego_motion(ego, Values::as_given), timestamp(time, "timestamp_ns"), timestamp(now, "now_ns")));
  }

  // The keyword arguments of imkd_edge.LiveFrame, with sweeps and ego motion as tuples.
  py::object pop(py::handle now) {
    const std::optional<LiveFrame> live = core.pop(timestamp(now, "now_ns"));
    if (!live) return py::none();
    const FrameSet& frame = live->frames;

    py::dict images, image_times, image_poses;
    for (std::size_t i = 0; i < rig.cameras.size(); ++i) {
      if (!live->cameras[i]) continue;
      const py::str name(rig.cameras[i].name);
      images[name] = object_of(live->cameras[i]).cast<py::tuple>()[0];
      image_times[name] = frame.camera_timestamps_ns[i];
      if (frame.camera_T_world_ego[i]) image_poses[name] = to_python(*frame.camera_T_world_ego[i]);
    }

    py::list sweeps;
    for (std::size_t i = 0; i < frame.sweeps.size(); ++i) {
      const RadarSweep& sweep = frame.sweeps[i];
      sweeps.append(py::make_tuple(rig.radars[static_cast<std::size_t>(sweep.radar)].name, object_of(live->sweeps[i]),
                                   sweep.timestamp_ns, value_or_none(sweep.T_world_ego)));
    }

    py::dict result;
    result["timestamp_ns"] = frame.timestamp_ns;
    result["frames"] = images;
    result["camera_timestamps_ns"] = image_times;
    result["camera_T_world_ego"] = image_poses;
    result["radar"] = sweeps;
    result["ego"] = py::make_tuple(value_or_none(frame.ego.T_world_ego), value_or_none(frame.ego.twist));
    result["complete"] = live->complete;
    return result;
  }

  py::dict counts() const {
    const SynchronizerCounts c = core.counts();
    py::dict result;
    for (const auto& [name, value] : {std::pair<const char*, std::int64_t>{"kept", c.kept},
                                      {"late", c.late},
                                      {"duplicate", c.duplicate},
                                      {"future", c.future},
                                      {"invalid", c.invalid},
                                      {"complete", c.complete},
                                      {"incomplete", c.incomplete},
                                      {"dropped", c.dropped},
                                      {"expired", c.expired},
                                      {"restarts", c.restarts}})
      result[name] = value;
    return result;
  }
};

struct PyMonitor {
  SensorRig rig;
  Monitor core;

  void observe_camera(const std::string& name, py::handle image, py::handle time, py::handle now) {
    std::vector<py::object> planes;
    core.observe_camera(camera_index(rig, name, "observe_camera"),
                        any_image(image, "image of camera \"" + name + "\"", {}, planes),
                        timestamp(time, "timestamp_ns"), timestamp(now, "now_ns"));
  }
  void observe_radar(py::handle sweep, py::handle now) {
    core.observe_radar(one_sweep(sweep, rig).views[0], timestamp(now, "now_ns"));
  }
  py::dict check(py::handle now) { return health_dict(core.check(timestamp(now, "now_ns")), rig); }
};

std::unique_ptr<PySynchronizer> make_synchronizer(const SensorRig& rig, const ModelSpec& spec,
                                                  const std::string& reference, double tolerance, double timeout,
                                                  double max_delay, double max_future, double lost_after,
                                                  int max_images, int max_sweeps) {
  const SynchronizerOptions options{reference,  tolerance,  timeout,    max_delay,
                                    max_future, lost_after, max_images, max_sweeps};
  return std::unique_ptr<PySynchronizer>(new PySynchronizer{rig, Synchronizer(rig, spec, options)});
}

std::unique_ptr<PyMonitor> make_monitor(const SensorRig& rig, const ModelSpec& spec, double lost_after,
                                        int frozen_after) {
  return std::unique_ptr<PyMonitor>(new PyMonitor{rig, Monitor(rig, spec, {lost_after, frozen_after})});
}

Watchdog::Missed missed_callback(const py::object& missed) {
  if (missed.is_none()) return {};
  return [owner = owner_of(missed)](double seconds) {
    py::gil_scoped_acquire gil;
    try {
      (*static_cast<const py::object*>(owner.get()))(seconds);
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("the callback of an imkd_edge.Watchdog");
    }
  };
}

Watchdog::Clock clock_of(const py::object& clock) {
  if (clock.is_none()) return {};
  return [owner = owner_of(clock)]() -> std::int64_t {
    py::gil_scoped_acquire gil;
    const py::object time = (*static_cast<const py::object*>(owner.get()))();
    const auto number = py::reinterpret_steal<py::object>(PyNumber_Index(time.ptr()));
    const long long ns = number ? PyLong_AsLongLong(number.ptr()) : -1;
    if (!PyErr_Occurred()) return ns;
    PyErr_Clear();
    throw Error(Code::spec_bad_value, "returned " + py::repr(time).cast<std::string>() + ", no int of ns",
                "Watchdog, clock", "use a clock such as time.monotonic_ns");
  };
}

// The timer's thread takes the GIL for the callback and the clock. Every call that may wait for that thread releases
// the GIL first.
struct PyWatchdog {
  std::shared_ptr<Watchdog> core;  // shared with the calls in progress: another thread may close it

  PyWatchdog(double deadline, const py::object& missed, const py::object& clock, bool timer) {
    Watchdog::Missed core_missed = missed_callback(missed);
    Watchdog::Clock core_clock = clock_of(clock);
    py::gil_scoped_release release;
    core = std::make_shared<Watchdog>(deadline, std::move(core_missed), std::move(core_clock), timer);
  }
  ~PyWatchdog() { close(); }

  void close() {
    std::shared_ptr<Watchdog> last = std::move(core);
    py::gil_scoped_release release;
    last.reset();
  }

  template <class Call>
  auto with_core(Call&& call) {
    if (!core)
      throw Error(Code::device_unavailable, "the watchdog is closed", "Watchdog",
                  "use it inside its with block, or create another one");
    std::shared_ptr<Watchdog> copy = core;
    py::gil_scoped_release release;
    const std::shared_ptr<Watchdog> local = std::move(copy);  // destroyed before the GIL is taken again
    return call(*local);
  }
};

}  // namespace

void bind_live(py::module_& m) {
  py::class_<PySynchronizer>(m, "Synchronizer")
      .def(py::init(&make_synchronizer), py::arg("rig"), py::arg("spec"), py::arg("reference"), py::arg("tolerance"),
           py::arg("timeout"), py::arg("max_delay"), py::arg("max_future"), py::arg("lost_after"),
           py::arg("max_images"), py::arg("max_sweeps"))
      .def("push_camera", &PySynchronizer::push_camera)
      .def("push_radar", &PySynchronizer::push_radar)
      .def("push_ego", &PySynchronizer::push_ego)
      .def("pop", &PySynchronizer::pop)
      .def("reset", [](PySynchronizer& self) { self.core.reset(); })
      .def("counts", &PySynchronizer::counts);
  py::class_<PyMonitor>(m, "Monitor")
      .def(py::init(&make_monitor), py::arg("rig"), py::arg("spec"), py::arg("lost_after"), py::arg("frozen_after"))
      .def("observe_camera", &PyMonitor::observe_camera)
      .def("observe_radar", &PyMonitor::observe_radar)
      .def("check", &PyMonitor::check)
      .def("reset", [](PyMonitor& self) { self.core.reset(); });
  py::class_<PyWatchdog>(m, "Watchdog")
      .def(py::init<double, py::object, py::object, bool>(), py::arg("deadline"), py::arg("missed"), py::arg("clock"),
           py::arg("timer"))
      .def("beat", [](PyWatchdog& self) { self.with_core([](Watchdog& core) { core.beat(); }); })
      .def("poll", [](PyWatchdog& self) { self.with_core([](Watchdog& core) { core.poll(); }); })
      .def("overdue", [](PyWatchdog& self) { return self.with_core([](Watchdog& core) { return core.overdue(); }); })
      .def("misses", [](PyWatchdog& self) { return self.with_core([](Watchdog& core) { return core.misses(); }); })
      .def("close", &PyWatchdog::close);
}
