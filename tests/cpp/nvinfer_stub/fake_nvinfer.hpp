// A TensorRT of our own behind the declarations in this folder, on the CUDA runtime of our own; its calls are counted
// and fail with CUDA's.
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
  int repeats = 1;   // how often TensorRT says so
  std::string blob;  // what deserializeCudaEngine was given
  std::map<std::string, void*> addresses;
  cudaStream_t stream = nullptr;  // of the last enqueueV3
  int dla = -1;
  nvinfer1::ILogger* logger = nullptr;
};

State& state();  // enqueueV3 makes every output's value i the sum over all inputs of their value i

}  // namespace fake
