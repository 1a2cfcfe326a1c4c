// Mutations of the values of a JSON document, so that a reader's checks are reached behind its parser. A target that
// includes this header is mutated so.
#pragma once
#include <cstddef>
#include <cstdint>

namespace imkd::fuzz {

std::size_t mutate_json(std::uint8_t* data, std::size_t size, std::size_t max_size, unsigned seed);
std::size_t cross_json(const std::uint8_t* a, std::size_t a_size, const std::uint8_t* b, std::size_t b_size,
                       std::uint8_t* out, std::size_t max_size, unsigned seed);

}  // namespace imkd::fuzz

// Called by libFuzzer, found by their names.
extern "C" inline __attribute__((used)) std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                                                            std::size_t max_size, unsigned seed) {
  return imkd::fuzz::mutate_json(data, size, max_size, seed);
}
extern "C" inline __attribute__((used)) std::size_t LLVMFuzzerCustomCrossOver(const std::uint8_t* a, std::size_t a_size,
                                                                              const std::uint8_t* b, std::size_t b_size,
                                                                              std::uint8_t* out, std::size_t max_size,
                                                                              unsigned seed) {
  return imkd::fuzz::cross_json(a, a_size, b, b_size, out, max_size, seed);
}
