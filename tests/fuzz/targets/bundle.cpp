// The manifest of a bundle, beside three files whose sizes and hashes the seeds state.
#include "imkd/bundle.hpp"

#include "json_mutator.hpp"
#include "target.hpp"

using namespace imkd;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::Folder folder("small.imkd");
  static const bool written = [] {
    for (const char* name : {"camera.onnx", "bev.onnx", "golden.npz"}) folder.write(name, name);
    return true;
  }();
  folder.write("manifest.json", fuzz::text(data, size));
  Bundle bundle;
  if (!fuzz::accepted([&] { bundle = Bundle::load(folder.path.string()); })) return 0;
  fuzz::require(written && bundle.manifest.size() == size, "a manifest is read whole");
  for (const char* name : {"camera.onnx", "bev.onnx", "golden.npz"})
    fuzz::require(std::filesystem::is_regular_file(bundle.file(name)), "a file of a bundle exists");
  bundle.spec.check();
  if (bundle.contract) bundle.contract->check(bundle.spec);
  return 0;
}
