// IMKD_HD marks a function that the CPU op and its CUDA twin share.
#pragma once
#if defined(__CUDACC__)
#define IMKD_HD __host__ __device__
#else
#define IMKD_HD
#endif

namespace imkd {

IMKD_HD inline float to_float(float value) { return value; }  // for __half see kernel.hpp

}  // namespace imkd
