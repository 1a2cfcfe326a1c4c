// IMKD_CLONES compiles a function for wider vectors too and picks at load time; results are equal because nothing is
// contracted or reordered.
#pragma once
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && !defined(IMKD_SANITIZED)
#define IMKD_CLONES __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define IMKD_CLONES
#endif
