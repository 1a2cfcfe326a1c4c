// A fake TensorRT behind the declarations in this folder, on the fake CUDA runtime. Its calls are recorded among CUDA's
// and can be made to fail like them.
#pragma once
#include <NvInfer.h>

#include <fake_cuda.hpp>
#include <map>
#include <string>
#include <vector>

namespace fake {

struct Tensor {
  std::string name;
  std::vector<std::int64_t> shape;
  bool is_input;
  nvinfer1::DataType type = nvinfer1::DataType::kFLOAT;
  nvinfer1::TensorFormat format = nvinfer1::TensorFormat::kLINEAR;
};

struct State {
  std::vector<Tensor> tensors{
      {"x", {1, 4}, true}, {"scale", {1, 4}, true}, {"y", {1, 4}, false}, {"debug", {2, 2}, false}};
  int repeats = 1;   // how often a failing call logs its message
  std::string blob;  // argument of the last deserializeCudaEngine
  std::map<std::string, void*> addresses;
  cudaStream_t stream = nullptr;  // of the last enqueueV3
  int dla = -1;
  int major = NV_TENSORRT_MAJOR;  // of the library's version
  nvinfer1::ILogger* logger = nullptr;
};

// enqueueV3 sets value i of every output to the sum over all inputs of their value i.
State& state();

}  // namespace fake
