// IMKD_CLONES also compiles a function for wider vectors and selects a clone at load time. Results are equal because
// nothing is contracted or reordered.
#pragma once
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && !defined(IMKD_SANITIZED)
#define IMKD_CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define IMKD_CLONES
#endif
