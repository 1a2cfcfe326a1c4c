# Installs the library, builds the example against it with find_package, and runs it.
function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE failed OUTPUT_VARIABLE said ERROR_VARIABLE said)
  if(failed)
    message(FATAL_ERROR "${ARGN}: ${failed}\n${said}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix --component cpp)
run(${CMAKE_COMMAND} -S ${SOURCE}/cpp/examples -B ${WORK}/build -DCMAKE_PREFIX_PATH=${WORK}/prefix -DCMAKE_CXX_COMPILER=${CXX}
    -DCMAKE_TOOLCHAIN_FILE=${TOOLCHAIN})
run(${CMAKE_COMMAND} --build ${WORK}/build)

execute_process(COMMAND ${EMULATOR} ${WORK}/build/detect RESULT_VARIABLE code ERROR_VARIABLE said)
if(NOT code EQUAL 2 OR NOT said MATCHES "usage: detect")
  message(FATAL_ERROR "without arguments: exit code ${code}, not 2\n${said}")
endif()
execute_process(COMMAND ${EMULATOR} ${WORK}/build/detect none.imkd none.json none RESULT_VARIABLE code ERROR_VARIABLE said)
if(NOT code EQUAL 4 OR NOT said MATCHES "^error.E0[0-9]+")
  message(FATAL_ERROR "without files: exit code ${code}, not 4\n${said}")
endif()
