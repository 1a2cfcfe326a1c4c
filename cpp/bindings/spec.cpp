// ModelSpec and its parts.
#include "imkd/spec.hpp"

#include "fields.hpp"

using namespace imkd;
using namespace imkd::python;

namespace {

template <class T>
py::class_<T> part(py::module_& m, const char* name, const char* doc) {
  return bind_struct<T>(m, name, doc, Code::spec_bad_value).def(py::init(&from_keywords<T>));
}

// Refuses a stride of 0 before the division.
const ImageSpec& checked(const ImageSpec& spec) {
  spec.check();
  return spec;
}

void bind_box_channels(py::module_& m) {
  py::native_enum<BoxChannel::Index> channels(m, "BoxChannel", "enum.IntEnum",
                                              "Channels of one task group's box regression, in the network's order.");
  for (int i = 0; i < kBoxChannels; ++i) channels.value(kBoxChannelNames[i], static_cast<BoxChannel::Index>(i));
  channels.finalize();
  py::dict slices;
  for (const BoxSlice& part : kBoxSlices) slices[part.name] = py::slice(part.begin, part.end, 1);
  m.attr("BOX_CHANNELS") = kBoxChannels;
  m.attr("BOX_SLICES") = slices;
}

}  // namespace

void bind_spec(py::module_& m) {
  part<ImageSpec>(m, "ImageSpec",
                  "Input of the camera network: size px, feature stride, crop anchor, mean and std in grey levels.")
      .def("feature_width", [](const ImageSpec& spec) { return checked(spec).feature_width(); })
      .def("feature_height", [](const ImageSpec& spec) { return checked(spec).feature_height(); })
      .def("check", &ImageSpec::check);
  part<DepthSpec>(m, "DepthSpec", "Bins of camera depth (optical z), m.")
      .def("edge", &DepthSpec::edge, py::arg("i"),
           "Depth m of edge i; bin i covers [edge(i), edge(i + 1)), its centre is edge(i + 0.5).");
  part<GridSpec>(m, "GridSpec", "Bird's-eye-view grid in the ego frame, m; rows run along y, columns along x.")
      .def("width", &GridSpec::width)
      .def("height", &GridSpec::height)
      .def("check", &GridSpec::check);
  part<RadarFeature>(m, "RadarFeature",
                     "One channel of the radar grid: (statistic - offset) * scale where a cell has points, else 0.");
  part<ClassSpec>(
      m, "ClassSpec",
      "A class of objects: name, task group, radius m of circle suppression among its boxes, whether boxes of "
      "other exclusive classes suppress it, least and largest length, width, height m or None.");
  bind_list<std::vector<RadarFeature>>(m, "RadarFeatures");
  bind_list<std::vector<ClassSpec>>(m, "ClassSpecs");
  part<RadarSpec>(m, "RadarSpec", "Radar grid: cell m, maximum of points, maximum age s, channels.");
  part<HeadSpec>(m, "HeadSpec", "Classes and decode limits.").def("groups", &HeadSpec::groups);
  part<HistorySpec>(m, "HistorySpec",
                    "Past fused BEV maps that the BEV network reads: number, s between them, channels of one.");
  part<ModelSpec>(m, "ModelSpec", "The only home of a model's constants.")
      .def("radar_width", &ModelSpec::radar_width)
      .def("radar_height", &ModelSpec::radar_height)
      .def_property(
          "legacy_plane", [](const ModelSpec& spec) { return to_python(spec.legacy_plane); },
          [](ModelSpec& spec, py::handle plane) {
            from_python(plane, spec.legacy_plane, Code::spec_bad_value, "legacy_plane");
          },
          "Ground plane (a, b, c) of versions 1 and 2, for a rig that names none; where not 0, to_json writes version "
          "2.")
      .def("check", &ModelSpec::check, "Raises Error E0104 where a value is out of range or inconsistent with another.")
      .def("to_json", &ModelSpec::to_json, "Canonical JSON: sorted keys, two spaces, ends in a newline.")
      .def_static("from_json", &ModelSpec::from_json, py::arg("text"),
                  "Reads to_json's form strictly; raises Error E010x.")
      .def(py::pickle([](const ModelSpec& spec) { return spec.to_json(); },
                      [](const std::string& text) { return ModelSpec::from_json(text); }));
  bind_box_channels(m);
  m.attr("SCORES") = py::make_tuple(kMinScore, kMaxScore);
}
