# The kernels and the frame loop on the GPU. On by default where nvcc and TensorRT's headers are found, as with JetPack;
# with -DIMKD_CUDA=ON they need no TensorRT, which only the native engine does.
include(CheckLanguage)
check_language(CUDA)
if(CMAKE_CUDA_COMPILER AND IMKD_TRT_INCLUDE)
  set(imkd_cuda_default ON)
endif()
option(IMKD_CUDA "Build the CUDA kernels and device \"cuda\"" ${imkd_cuda_default})
if(NOT IMKD_CUDA)
  message(STATUS "Device cuda: off (-DIMKD_CUDA=ON builds it; needs nvcc, CUDA 12.0 or newer)")
  return()
endif()

find_package(CUDAToolkit 12.0 REQUIRED)
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)  # AGX Orin; Thor too where nvcc knows it
  if(CUDAToolkit_VERSION VERSION_LESS 13.0)
    set(CMAKE_CUDA_ARCHITECTURES 87)
  else()
    set(CMAKE_CUDA_ARCHITECTURES 87-real 110)
  endif()
endif()
enable_language(CUDA)
file(GLOB imkd_cuda_sources CONFIGURE_DEPENDS cpp/src/ops/*.cu cpp/src/cuda/*.cpp)
target_sources(imkd PRIVATE ${imkd_cuda_sources})
# As on the CPU: no contraction into FMA. The formulas shared with the CPU ops use std::array and the like.
target_compile_options(imkd PRIVATE
                       "$<$<COMPILE_LANGUAGE:CUDA>:-fmad=false;--expt-relaxed-constexpr;-Xcompiler=-ffp-contract=off>")
set_target_properties(imkd PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_VISIBILITY_PRESET hidden
                           CUDA_RUNTIME_LIBRARY Static CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}")
target_include_directories(imkd SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
target_link_libraries(imkd PRIVATE CUDA::cudart_static)  # static: the core loads where there is no CUDA
target_compile_definitions(imkd PRIVATE IMKD_WITH_CUDA)
set(IMKD_NEEDS_CUDA ON)
message(STATUS "Device cuda: on (CUDA ${CUDAToolkit_VERSION}, architectures ${CMAKE_CUDA_ARCHITECTURES})")
