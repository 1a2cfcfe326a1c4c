// The JSON of a model's spec, of every version.
#include "imkd/spec.hpp"

#include "json_mutator.hpp"
#include "target.hpp"

using namespace imkd;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ModelSpec spec;
  if (!fuzz::accepted([&] { spec = ModelSpec::from_json(fuzz::text(data, size)); })) return 0;
  const std::string text = spec.to_json();
  fuzz::require(ModelSpec::from_json(text).to_json() == text, "a spec survives writing and reading");
  fuzz::require(spec.grid.width() > 0 && spec.grid.height() > 0, "a grid has cells");
  fuzz::require(spec.radar_width() % spec.grid.width() == 0 && spec.radar_height() % spec.grid.height() == 0,
                "a cell of the grid holds whole cells of the radar grid");
  fuzz::require(spec.head.groups() > 0, "a head has groups");
  return 0;
}
