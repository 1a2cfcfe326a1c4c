# The native ONNX Runtime engine needs only its headers: the library is opened at run time. Without them the core has no native engine.
find_path(IMKD_ORT_INCLUDE onnxruntime_cxx_api.h
          HINTS "${ONNXRUNTIME_ROOT}" "$ENV{ONNXRUNTIME_ROOT}" "${PROJECT_SOURCE_DIR}/build/onnxruntime"  # .ci/onnxruntime-headers
          PATH_SUFFIXES include include/onnxruntime include/onnxruntime/core/session onnxruntime usr/include/onnxruntime
          DOC "Folder of onnxruntime_cxx_api.h, API 16 or newer")
if(IMKD_ORT_INCLUDE)
  message(STATUS "Native ONNX Runtime engine: on (${IMKD_ORT_INCLUDE})")
  target_include_directories(imkd SYSTEM PRIVATE ${IMKD_ORT_INCLUDE})
  target_compile_definitions(imkd PRIVATE IMKD_WITH_ORT)
else()
  message(STATUS "Native ONNX Runtime engine: off (no headers; set ONNXRUNTIME_ROOT)")
endif()
