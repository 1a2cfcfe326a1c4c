// IMKD_HD marks a formula that the CPU op and its CUDA twin share; only nvcc needs to be told.
#pragma once
#if defined(__CUDACC__)
#define IMKD_HD __host__ __device__
#else
#define IMKD_HD
#endif

namespace imkd {

IMKD_HD inline float to_float(float value) { return value; }  // kernel.hpp has the one of half

}  // namespace imkd
