// Walks protobuf's wire format along the fields of onnx.proto that lead to tensors. It must accept all that protobuf
// accepts, or a tensor could hide behind the byte where it stops; bytes that both refuse are left to the engine's
// parser.
#include "onnx_external.hpp"

#include <cstdint>

namespace imkd {
namespace {

enum class Message { model, graph, node, attribute, tensor, sparse, function, training };

struct Step {
  Message in;
  std::uint32_t field;
  Message to;
};
constexpr Step kSteps[] = {
    {Message::model, 7, Message::graph},         {Message::model, 20, Message::training},
    {Message::model, 25, Message::function},     {Message::graph, 1, Message::node},
    {Message::graph, 5, Message::tensor},        {Message::graph, 15, Message::sparse},
    {Message::node, 5, Message::attribute},      {Message::attribute, 5, Message::tensor},
    {Message::attribute, 6, Message::graph},     {Message::attribute, 10, Message::tensor},
    {Message::attribute, 11, Message::graph},    {Message::attribute, 22, Message::sparse},
    {Message::attribute, 23, Message::sparse},   {Message::sparse, 1, Message::tensor},
    {Message::sparse, 2, Message::tensor},       {Message::function, 7, Message::node},
    {Message::function, 11, Message::attribute}, {Message::training, 1, Message::graph},
    {Message::training, 2, Message::graph},
};
constexpr std::uint32_t kExternalData = 13, kDataLocation = 14;  // of a tensor
constexpr int kDeepest = 100;                                    // nested messages; protobuf's own limit
constexpr const char* kExternal = "stores tensors in another file, which no checksum covers";

struct Bytes {
  const unsigned char* at;
  const unsigned char* end;

  bool varint(std::uint64_t& value) {
    value = 0;
    for (int shift = 0; at < end && shift < 70; shift += 7) {
      value |= std::uint64_t(*at & 0x7f) << shift;
      if (!(*at++ & 0x80)) return true;
    }
    return false;
  }
  bool take(std::uint64_t count, Bytes& out) {
    if (count > static_cast<std::uint64_t>(end - at)) return false;
    out = {at, at + count};
    at += count;
    return true;
  }
};

const char* walk(Message message, Bytes bytes, int depth) {
  if (depth > kDeepest) return "nests messages deeper than 100 levels, which is not checked";
  const bool tensor = message == Message::tensor;
  std::uint64_t tag = 0;
  std::uint64_t value = 0;
  Bytes part{};
  while (bytes.varint(tag)) {
    const std::uint32_t field = static_cast<std::uint32_t>(tag) >> 3;  // truncated to 32 bits, as in protobuf
    switch (tag & 7) {
      case 0:
        if (!bytes.varint(value)) return nullptr;
        if (tensor && field == kDataLocation && value != 0) return kExternal;
        break;
      case 1:
        if (!bytes.take(8, part)) return nullptr;
        break;
      case 2:
        if (!bytes.varint(value) || !bytes.take(value, part)) return nullptr;
        if (tensor && field == kExternalData) return kExternal;
        for (const Step& step : kSteps)
          if (step.in == message && step.field == field)
            if (const char* fault = walk(step.to, part, depth + 1)) return fault;
        break;
      case 3:
      case 4:
        break;  // a group of unknown fields: they are read as fields of this message
      case 5:
        if (!bytes.take(4, part)) return nullptr;
        break;
      default:
        return nullptr;
    }
  }
  return nullptr;
}

}  // namespace

const char* external_tensors(const char* bytes, std::size_t size) {
  const auto* first = reinterpret_cast<const unsigned char*>(bytes);
  return walk(Message::model, {first, first + size}, 1);
}

}  // namespace imkd
