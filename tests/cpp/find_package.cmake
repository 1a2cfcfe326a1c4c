# Installs the library, builds the examples against it with find_package and with pkg-config, and runs them.
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

# A version that it is not is refused.
file(WRITE ${WORK}/later/CMakeLists.txt "cmake_minimum_required(VERSION 3.20)\nproject(later LANGUAGES CXX)\nfind_package(imkd 0.2 REQUIRED)\n")
execute_process(COMMAND ${CMAKE_COMMAND} -S ${WORK}/later -B ${WORK}/later/build -DCMAKE_PREFIX_PATH=${WORK}/prefix -DCMAKE_CXX_COMPILER=${CXX}
                        -DCMAKE_TOOLCHAIN_FILE=${TOOLCHAIN} RESULT_VARIABLE failed OUTPUT_VARIABLE said ERROR_VARIABLE said)
if(NOT failed OR NOT said MATCHES "imkd-config.cmake, version: 0.1")
  message(FATAL_ERROR "find_package(imkd 0.2) took version 0.1\n${said}")
endif()

# The same through pkg-config, in C++ and in C; the examples in folders of their own.
run(${CMAKE_COMMAND} -S ${SOURCE}/cpp/examples/embed -B ${WORK}/embed -DCMAKE_PREFIX_PATH=${WORK}/prefix -DCMAKE_CXX_COMPILER=${CXX}
    -DCMAKE_TOOLCHAIN_FILE=${TOOLCHAIN})
run(${CMAKE_COMMAND} --build ${WORK}/embed)
find_program(PKG_CONFIG pkg-config REQUIRED)
file(GLOB_RECURSE packages ${WORK}/prefix/imkd.pc)
get_filename_component(packages ${packages} DIRECTORY)
set(ENV{PKG_CONFIG_PATH} ${packages})
function(flags_of package out)
  execute_process(COMMAND ${PKG_CONFIG} --cflags --libs ${package} RESULT_VARIABLE failed OUTPUT_VARIABLE flags ERROR_VARIABLE said)
  if(failed)
    message(FATAL_ERROR "pkg-config ${package}: ${said}")
  endif()
  separate_arguments(flags UNIX_COMMAND "${flags}")
  set(${out} ${flags} PARENT_SCOPE)
endfunction()
flags_of(imkd flags)
run(${CXX} -std=c++17 ${SOURCE}/cpp/examples/embed/embed.cpp ${flags} -o ${WORK}/embed_by_pkg_config)
flags_of(imkd-c flags)
run(${CC} -std=c99 -pedantic -Wall -Wextra -Werror ${SOURCE}/tests/cpp/c_abi/test_c_abi.c ${flags} -pthread -o ${WORK}/c_by_pkg_config)

# Folders that are absolute, as Nix gives them, stay as they are. The .pc files are written by the configuration.
run(${CMAKE_COMMAND} -S ${SOURCE} -B ${WORK}/absolute -DCMAKE_CXX_COMPILER=${CXX} -DCMAKE_TOOLCHAIN_FILE=${TOOLCHAIN}
    -DIMKD_JSON_INCLUDE=${JSON} -DCMAKE_INSTALL_PREFIX=/opt/imkd -DCMAKE_INSTALL_LIBDIR=/opt/imkd-lib
    -DCMAKE_INSTALL_INCLUDEDIR=/opt/imkd-include)
set(ENV{PKG_CONFIG_PATH} ${WORK}/absolute)
foreach(package imkd imkd-c)
  flags_of(${package} flags)
  if(NOT "${flags}" MATCHES "^-I/opt/imkd-include;(/opt/imkd-lib/libimkd.a|-L/opt/imkd-lib;-limkd)")
    message(FATAL_ERROR "${package}, installed to absolute folders: ${flags}")
  endif()
endforeach()

foreach(program build/detect build/stream embed/embed embed_by_pkg_config)
  execute_process(COMMAND ${EMULATOR} ${WORK}/${program} none.imkd none.json none RESULT_VARIABLE code ERROR_VARIABLE said)
  if(NOT code EQUAL 4 OR NOT said MATCHES "^error.E0[0-9]+")
    message(FATAL_ERROR "${program} without files: exit code ${code}, not 4\n${said}")
  endif()
endforeach()
set(ENV{LD_LIBRARY_PATH} ${packages}/..)
execute_process(COMMAND ${EMULATOR} ${WORK}/c_by_pkg_config RESULT_VARIABLE code ERROR_VARIABLE said)
if(NOT code EQUAL 2 OR NOT said MATCHES "usage: test_c_abi")
  message(FATAL_ERROR "C, without arguments: exit code ${code}, not 2\n${said}")
endif()

execute_process(COMMAND ${EMULATOR} ${WORK}/build/detect RESULT_VARIABLE code ERROR_VARIABLE said)
if(NOT code EQUAL 2 OR NOT said MATCHES "usage: detect")
  message(FATAL_ERROR "without arguments: exit code ${code}, not 2\n${said}")
endif()
