// Runs a target on every file of the folders given, in the order of their names: the main() of builds without
// libFuzzer.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

#include "target.hpp"

namespace fs = std::filesystem;

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t*, std::size_t size, std::size_t) { return size; }

int main(int count, char** arguments) {
  std::set<fs::path> files;
  for (int i = 1; i < count; ++i) {
    if (fs::is_directory(arguments[i]))
      for (const fs::directory_entry& entry : fs::directory_iterator(arguments[i])) files.insert(entry.path());
    else
      files.insert(arguments[i]);
  }
  for (const fs::path& path : files) {
    std::ifstream file(path, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    std::fprintf(stderr, "%s, %zu bytes\n", path.filename().c_str(), bytes.size());  // the last one is that which fails
    if (!file) return 2;
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  }
  std::printf("%zu inputs replayed\n", files.size());
  return files.empty();
}
