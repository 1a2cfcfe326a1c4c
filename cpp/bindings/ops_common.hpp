// Shared by the bindings of the ops: their thread pool and scratch memory.
#pragma once
#include <memory>

#include "common.hpp"
#include "imkd/thread_pool.hpp"

namespace imkd::python {

std::shared_ptr<ThreadPool> pool();
void* scratch(std::size_t bytes);  // of this thread, valid until its next call

inline FloatArray empty(const std::vector<py::ssize_t>& shape) { return FloatArray(shape); }

}  // namespace imkd::python
