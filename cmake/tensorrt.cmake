# The native TensorRT engine needs TensorRT's headers and the CUDA runtime; TensorRT's library is opened at run time.
# Without them the core has no engine for a GPU.
find_path(IMKD_TRT_INCLUDE NvInfer.h
          HINTS "${TENSORRT_ROOT}" "$ENV{TENSORRT_ROOT}"
          PATH_SUFFIXES include include/${CMAKE_LIBRARY_ARCHITECTURE}
          DOC "Folder of NvInfer.h, TensorRT 10.3 or newer")
if(IMKD_TRT_INCLUDE)
  find_package(CUDAToolkit QUIET)
endif()
if(IMKD_TRT_INCLUDE AND TARGET CUDA::cudart_static)
  message(STATUS "Native TensorRT engine: on (${IMKD_TRT_INCLUDE}, CUDA ${CUDAToolkit_VERSION})")
  target_include_directories(imkd SYSTEM PRIVATE ${IMKD_TRT_INCLUDE})
  target_link_libraries(imkd PRIVATE CUDA::cudart_static)  # static: the core loads where there is no CUDA
  target_compile_definitions(imkd PRIVATE IMKD_WITH_TRT)
  set(IMKD_NEEDS_CUDA ON)
elseif(IMKD_TRT_INCLUDE)
  message(STATUS "Native TensorRT engine: off (${IMKD_TRT_INCLUDE}, but no CUDA runtime; set CUDAToolkit_ROOT)")
else()
  message(STATUS "Native TensorRT engine: off (no headers; set TENSORRT_ROOT)")
endif()
