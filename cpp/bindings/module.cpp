// The extension module _core: errors first, then one function per concept.
#include "common.hpp"

namespace py = pybind11;
using imkd::Code;

void bind_spec(py::module_& m);
void bind_rig(py::module_& m);
void bind_ego_motion(py::module_& m);
void bind_ops(py::module_& m);
void bind_contract(py::module_& m);
void bind_bundle(py::module_& m);
void bind_engine(py::module_& m);
void bind_detector(py::module_& m);
void bind_live(py::module_& m);
void bind_tracker(py::module_& m);

namespace {

// -Wswitch reports a code without a case.
const char* identifier(Code code) {
  switch (code) {
#define NAME(code) \
  case Code::code: \
    return #code;
    // clang-format off
    NAME(spec_syntax) NAME(spec_unknown_key) NAME(spec_missing_key) NAME(spec_bad_value) NAME(spec_version)
    NAME(frame_bad_dtype) NAME(frame_bad_shape) NAME(frame_unknown_sensor) NAME(frame_count) NAME(frame_bad_time)
    NAME(rig_syntax) NAME(rig_unknown_key) NAME(rig_missing_key) NAME(rig_bad_value) NAME(rig_not_rigid)
    NAME(rig_duplicate_name) NAME(rig_empty) NAME(rig_mismatch)
    NAME(source_unknown) NAME(source_missing_file) NAME(source_bad_image) NAME(source_bad_points) NAME(source_bad_label)
    NAME(source_bad_calibration) NAME(source_unknown_frame) NAME(source_syntax) NAME(source_unknown_key)
    NAME(source_missing_key) NAME(source_bad_value) NAME(source_bad_path) NAME(source_duplicate)
    NAME(source_bad_time) NAME(source_bad_split)
    NAME(bundle_missing) NAME(bundle_manifest) NAME(bundle_unknown_key) NAME(bundle_missing_key) NAME(bundle_version)
    NAME(bundle_missing_file) NAME(bundle_checksum) NAME(bundle_bad_path) NAME(bundle_tensor_mismatch)
    NAME(bundle_bad_value) NAME(bundle_unsigned) NAME(signature_malformed) NAME(signature_unknown_key)
    NAME(signature_wrong) NAME(bundle_rolled_back) NAME(trust_bad_value)
    NAME(engine_unavailable) NAME(engine_load) NAME(engine_bind) NAME(engine_run) NAME(engine_stale) NAME(detector_busy)
    NAME(forked)
    NAME(device_unavailable) NAME(device_failed)
    NAME(train_config) NAME(train_checkpoint) NAME(train_diverged) NAME(train_no_data)
    NAME(calibration_few_frames) NAME(calibration_no_radar) NAME(calibration_other_rig) NAME(quantized_already)
    NAME(missing_extra) NAME(write_failed) NAME(abi_mismatch) NAME(missing_library)
    // clang-format on
#undef NAME
  }
  return nullptr;
}

// One class for errors of the core and of Python code.
constexpr const char* kErrorClass = R"(
class Error(Exception):
    """What went wrong, with a code, where, and how to mend it.

    Attributes: code ("E0203"), what, where, fix. str() is "error[E0203] what / where / how to fix".
    """

    def __init__(self, code, what, where="", fix=""):
        self.code = code if isinstance(code, str) else f"E{int(code):04d}"
        self.what, self.where, self.fix = what, where, fix
        super().__init__(self.code, what, where, fix)

    def __str__(self):
        return " / ".join([f"error[{self.code}] {self.what}"] + [part for part in (self.where, self.fix) if part])
)";

// A message may quote bytes of a file that are not UTF-8.
py::object text(const std::string& bytes) {
  return py::reinterpret_steal<py::object>(
      PyUnicode_DecodeUTF8(bytes.data(), static_cast<py::ssize_t>(bytes.size()), "replace"));
}

PyObject* error_class = nullptr;  // lives as long as the module

void bind_errors(py::module_& m) {
  py::native_enum<Code> codes(m, "Code", "enum.IntEnum",
                              "The error codes; the hundreds digit names the concept at fault.");
  for (int value = 0; value < 1000; ++value)
    if (const char* name = identifier(static_cast<Code>(value))) codes.value(name, static_cast<Code>(value));
  codes.finalize();

  py::dict scope;
  scope["__builtins__"] = py::module_::import("builtins");
  scope["__name__"] = "imkd_edge.errors";
  py::exec(kErrorClass, scope);
  m.attr("Error") = scope["Error"];
  error_class = scope["Error"].cast<py::object>().release().ptr();
  py::register_exception_translator([](std::exception_ptr raised) {
    try {
      if (raised) std::rethrow_exception(raised);
    } catch (const imkd::Error& e) {
      const py::object error =
          py::handle(error_class)(static_cast<int>(e.code()), text(e.problem()), text(e.where()), text(e.fix()));
      PyErr_SetObject(error_class, error.ptr());
    }
  });
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "The C++ core of imkd_edge.";
  bind_errors(m);
  bind_spec(m);
  bind_rig(m);
  bind_ego_motion(m);
  bind_ops(m);
  bind_contract(m);
  bind_bundle(m);
  bind_engine(m);
  bind_detector(m);
  bind_live(m);
  bind_tracker(m);
}
