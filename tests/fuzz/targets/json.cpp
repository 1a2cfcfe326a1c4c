// The strict JSON parser under every reader: what it accepts is written and read again as the same document.
#include "json.hpp"

#include "target.hpp"

using namespace imkd;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  json::Json document;
  if (!fuzz::accepted([&] { document = json::parse(fuzz::text(data, size), json::kBundleCodes); })) return 0;
  const std::string text = json::dump(document, json::kBundleCodes);
  const json::Json again = json::parse(text, json::kBundleCodes);
  fuzz::require(json::dump(again, json::kBundleCodes) == text, "a document survives writing and reading");
  return 0;
}
