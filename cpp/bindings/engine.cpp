// Engine, with a trampoline for engines written in Python; tensors are passed as NumPy views, without a copy.
#include "imkd/engine.hpp"

#include <pybind11/trampoline_self_life_support.h>

#include "common.hpp"
#include "engine/engine_file.hpp"
#include "engine/ort.hpp"
#include "shape_text.hpp"

namespace py = pybind11;
using imkd::Code;
using imkd::Engine;
using imkd::Error;
using imkd::TensorInfo;
using imkd::Type;

namespace {

// A writable view that shares ownership of the memory: an engine may outlive the detector that bound it.
py::array view(const TensorInfo& info, std::shared_ptr<void> data) {
  void* address = data.get();
  py::capsule owner(new std::shared_ptr<void>(std::move(data)),
                    [](void* p) { delete static_cast<std::shared_ptr<void>*>(p); });
  return py::array(py::dtype(imkd::name_of(info.type)), std::vector<py::ssize_t>(info.shape.begin(), info.shape.end()),
                   address, owner);
}

Type type_of(const std::string& name) {
  for (Type type : {Type::float32, Type::float16, Type::int8})
    if (name == imkd::name_of(type)) return type;
  throw Error(Code::bundle_tensor_mismatch, "the type " + name + " is not supported", "TensorInfo",
              "use float32, float16 or int8");
}

class PyEngine : public Engine, public py::trampoline_self_life_support {
 public:
  std::string name() const override { PYBIND11_OVERRIDE_PURE(std::string, Engine, name, ); }
  void load(const std::string& onnx_path) override { PYBIND11_OVERRIDE_PURE(void, Engine, load, onnx_path); }
  // To a method in Python the content is bytes.
  void load_content(const std::string& onnx_path, const std::string& onnx) override {
    {
      py::gil_scoped_acquire gil;
      if (const py::function method = py::get_override(static_cast<const Engine*>(this), "load_content")) {
        method(onnx_path, py::bytes(onnx));
        return;
      }
    }
    load(onnx_path);
  }
  std::vector<TensorInfo> inputs() const override { PYBIND11_OVERRIDE_PURE(std::vector<TensorInfo>, Engine, inputs, ); }
  std::vector<TensorInfo> outputs() const override {
    PYBIND11_OVERRIDE_PURE(std::vector<TensorInfo>, Engine, outputs, );
  }

  void bind(const std::string& tensor, std::shared_ptr<void> data) override {
    for (const auto& infos : {inputs(), outputs()})
      for (const TensorInfo& info : infos)
        if (info.name == tensor) return call_bind(info, std::move(data));
    throw Error(Code::engine_bind, "the engine has no tensor \"" + tensor + "\"", name(),
                "use a name of inputs() or outputs()");
  }

  void run(void*) override { PYBIND11_OVERRIDE_PURE(void, Engine, run, ); }

 private:
  void call_bind(const TensorInfo& info, std::shared_ptr<void> data) {
    py::gil_scoped_acquire gil;
    const py::function method = py::get_override(static_cast<const Engine*>(this), "bind");
    if (!method)
      throw Error(Code::engine_bind, "the engine has no method bind(tensor, array)", "",
                  "write one that stores a reference to the array");
    method(info.name, view(info, std::move(data)));
  }
};

// The memory of a NumPy array, owned through a reference to the array.
std::shared_ptr<void> share(const py::array& array, const TensorInfo& info) {
  const std::string type = imkd::name_of(info.type);
  if (!array.dtype().is(py::dtype(type)) || !(array.flags() & py::array::c_style) || !array.writeable())
    throw Error(Code::engine_bind,
                "the array for \"" + info.name + "\" must be " + type + ", C-contiguous and writable", "",
                "use numpy.zeros(shape, numpy." + type + ")");
  auto* owner = new py::array(array);
  return {owner->mutable_data(), [owner](void*) {
            py::gil_scoped_acquire gil;
            delete owner;
          }};
}

// Checks the shape: the engine would read beyond a smaller array.
void bind_array(Engine& engine, const std::string& tensor, const py::array& array) {
  for (const auto& infos : {engine.inputs(), engine.outputs()})
    for (const TensorInfo& info : infos) {
      if (info.name != tensor) continue;
      if (info.shape != std::vector<std::int64_t>(array.shape(), array.shape() + array.ndim()))
        throw Error(Code::engine_bind,
                    "the array for \"" + tensor + "\" is " +
                        imkd::shape_text(std::vector<py::ssize_t>(array.shape(), array.shape() + array.ndim())) +
                        ", the tensor " + imkd::shape_text(info.shape),
                    engine.name(), "use the shape of inputs() or outputs()");
      return engine.bind(tensor, share(array, info));
    }
  throw Error(Code::engine_bind, "the model has no tensor \"" + tensor + "\"", engine.name(),
              "use a name of inputs() or outputs()");
}

}  // namespace

void bind_engine(py::module_& m) {
  py::class_<TensorInfo>(m, "TensorInfo", "Name, shape and type of a tensor: float32, float16 or int8.")
      .def(py::init([](std::string name, std::vector<std::int64_t> shape, const std::string& dtype) {
             return TensorInfo{std::move(name), std::move(shape), type_of(dtype)};
           }),
           py::arg("name"), py::arg("shape"), py::arg("dtype") = "float32")
      .def_property_readonly("dtype", [](const TensorInfo& info) { return imkd::name_of(info.type); })
      .def_readonly("name", &TensorInfo::name)
      .def_property_readonly("shape", [](const TensorInfo& info) { return py::tuple(py::cast(info.shape)); })
      .def("__repr__", [](const TensorInfo& info) {
        return "TensorInfo(" + info.name + ", " + py::str(py::cast(info.shape)).cast<std::string>() + ", " +
               imkd::name_of(info.type) + ")";
      });

  const auto released = py::call_guard<py::gil_scoped_release>();
  py::class_<Engine, PyEngine, py::smart_holder>(m, "Engine",
                                                 "Runs one ONNX part; derive from it to write an engine in Python.")
      .def(py::init<>())
      .def("name", &Engine::name)
      .def("load", &Engine::load, py::arg("onnx_path"), released)
      .def(
          "load_content",
          [](Engine& engine, const std::string& onnx_path, const py::bytes& onnx) {
            const std::string content = onnx;
            py::gil_scoped_release release;
            engine.load_content(onnx_path, content);
          },
          py::arg("onnx_path"), py::arg("onnx"),
          "As load, with the content of the file; without a method of its own an engine reads the file again.")
      .def("inputs", &Engine::inputs)
      .def("outputs", &Engine::outputs)
      .def("bind", &bind_array, py::arg("tensor"), py::arg("array"))
      .def("run", [](Engine& engine) { engine.run(); }, released);
  m.def("native_engines", &imkd::native_engines, "Names of the engines built into the core.");
  m.def("make_engine", &imkd::make_engine, py::arg("name"), py::arg("threads") = 0,
        "A native engine; raises Error engine_unavailable.");
  m.def("set_ort_library", &imkd::set_ort_library, py::arg("path"));
  m.def("driver_version", &imkd::driver_version, py::arg("driver_file"), py::arg("tegra_file"),
        "Version of the NVIDIA kernel driver, \"540.4.0\", or on a Jetson without driver_file the release of L4T, "
        "\"R36.4.3\"; else \"unknown\".");
}
