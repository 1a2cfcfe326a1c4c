# Builds for a 64-bit ARM Linux (a Jetson) on a Debian or Ubuntu machine of another kind; an emulator runs the programs:
#   apt install g++-aarch64-linux-gnu qemu-user-static
#   cmake -S . -B build/aarch64 -G Ninja -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux.cmake
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)  # GoogleTest asks for one
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CUDA_HOST_COMPILER aarch64-linux-gnu-g++)

find_program(IMKD_QEMU NAMES qemu-aarch64 qemu-aarch64-static)
if(IMKD_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${IMKD_QEMU} -L /usr/aarch64-linux-gnu)
endif()
