// The record beside an engine file, and the files of the driver that it is compared with.
#include "engine/engine_file.hpp"

#include "json_mutator.hpp"
#include "target.hpp"

using namespace imkd;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::Folder folder("engines");
  static const bool written = [] {
    folder.write("part.engine", "engine");
    return true;
  }();
  folder.write("part.engine.json", fuzz::text(data, size));
  const Machine machine{"10.3.0", "12.6", "540.4.0", "Orin", "87"};
  const std::string engine = (folder.path / "part.engine").string();
  EngineFile file;
  if (fuzz::accepted([&] { file = read_engine_file(engine, machine); }))
    fuzz::require(written && file.bytes == "engine", "an engine is read whole");
  const std::string record = engine + ".json";
  fuzz::require(!driver_version(record, record).empty(), "a driver has a version, or is unknown");
  return 0;
}
