# The native ONNX Runtime engine needs only the headers: the library is opened at run time. Without them the core has no
# native engine.
find_path(IMKD_ORT_INCLUDE onnxruntime_cxx_api.h
          HINTS "${ONNXRUNTIME_ROOT}" "$ENV{ONNXRUNTIME_ROOT}"
                "${PROJECT_SOURCE_DIR}/build/onnxruntime"  # by .ci/onnxruntime-headers
          PATH_SUFFIXES include include/onnxruntime include/onnxruntime/core/session onnxruntime usr/include/onnxruntime
          DOC "Folder of onnxruntime_cxx_api.h, API 16 or newer")
if(IMKD_ORT_INCLUDE)
  message(STATUS "Native ONNX Runtime engine: on (${IMKD_ORT_INCLUDE})")
  # For the two files that ask for it: where the headers come later, the others stay as they were compiled.
  set(imkd_ort_files cpp/src/engine/engine.cpp cpp/src/engine/ort.cpp)
  set_property(SOURCE ${imkd_ort_files} APPEND PROPERTY COMPILE_DEFINITIONS IMKD_WITH_ORT)
  set_property(SOURCE ${imkd_ort_files} APPEND PROPERTY COMPILE_OPTIONS -isystem ${IMKD_ORT_INCLUDE})
else()
  message(STATUS "Native ONNX Runtime engine: off (no headers; set ONNXRUNTIME_ROOT)")
endif()
