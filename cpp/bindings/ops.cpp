// What the ops share: the thread pool, scratch memory, cell_index.
#include "imkd/ops.hpp"

#include <mutex>

#include "ops_common.hpp"

using namespace imkd;
using namespace imkd::python;

void bind_camera_ops(py::module_& m);
void bind_bev_ops(py::module_& m);

namespace {

std::mutex pool_mutex;
std::shared_ptr<ThreadPool> shared_pool;

void set_threads(int threads) {
  auto fresh = std::make_shared<ThreadPool>(threads);
  std::lock_guard<std::mutex> lock(pool_mutex);
  shared_pool = std::move(fresh);
}

}  // namespace

std::shared_ptr<ThreadPool> imkd::python::pool() {
  std::lock_guard<std::mutex> lock(pool_mutex);
  if (!shared_pool) shared_pool = std::make_shared<ThreadPool>();
  return shared_pool;
}

// Kept between calls: new pages would take longer than some ops.
void* imkd::python::scratch(std::size_t bytes) {
  thread_local std::vector<std::max_align_t> memory;
  const std::size_t units = bytes / sizeof(std::max_align_t) + 1;
  if (memory.size() < units) memory.resize(units);
  return memory.data();
}

void bind_ops(py::module_& m) {
  bind_camera_ops(m);
  bind_bev_ops(m);
  m.def("cell_index", &cell_index, py::arg("value"), py::arg("min"), py::arg("cell"), py::arg("count"),
        "floor((value - min) / cell) in float32; -1 for NaN and outside [0, count).");
  m.def("set_threads", &set_threads, py::arg("threads"), py::call_guard<py::gil_scoped_release>(),
        "Threads of the ops called from Python; 0: one per core. No result depends on them. Raises Error E0511.");
}
