// The JSON of a bundle's contract.
#include "imkd/contract.hpp"

#include "json_mutator.hpp"
#include "target.hpp"

using namespace imkd;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Contract contract;
  if (!fuzz::accepted([&] { contract = Contract::from_json(fuzz::text(data, size)); })) return 0;
  const std::string text = contract.to_json();
  fuzz::require(Contract::from_json(text).to_json() == text, "a contract survives writing and reading");
  return 0;
}
