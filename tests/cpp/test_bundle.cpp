#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "as_nobody.hpp"
#include "fakes.hpp"
#include "imkd/bundle.hpp"
#include "onnx_external.hpp"
#include "sha256.hpp"

using namespace imkd;
using namespace imkd::fakes;
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

void write(const fs::path& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

class BundleFolder : public testing::Test {
 protected:
  void SetUp() override {
    folder = fs::path(testing::TempDir()) /
             ("imkd_" + std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) + ".imkd");
    fs::remove_all(folder);
    fs::create_directories(folder);
    manifest = {{"schema", 1},
                {"spec", json::parse(small_spec().to_json())},
                {"files", json::object()},
                {"metrics", {{"mAP", 0.5}}},
                {"provenance", {{"seed", 7}}}};
    for (const char* name : {"camera.onnx", "bev.onnx", "golden.npz"}) add(name, std::string("content of ") + name);
    save();
  }
  void TearDown() override { fs::remove_all(folder); }
  void add(const std::string& name, const std::string& bytes) {
    write(folder / name, bytes);
    manifest["files"][name] = {{"sha256", sha256_hex(bytes.data(), bytes.size())}, {"bytes", bytes.size()}};
  }
  void save() { write(folder / "manifest.json", manifest.dump(2)); }
  Code code() {
    return code_of([&] { Bundle::load(folder.string()); });
  }
  Code with(const std::string& text) {
    write(folder / "manifest.json", text);
    return code();
  }
  fs::path folder;
  json manifest;
};

TEST_F(BundleFolder, loads) {
  const Bundle bundle = Bundle::load(folder.string() + "/");
  EXPECT_EQ(bundle.spec.to_json(), small_spec().to_json());
  EXPECT_EQ(bundle.path, fs::canonical(folder).string());
  EXPECT_EQ(bundle.file("bev.onnx"), (fs::canonical(folder) / "bev.onnx").string());
  EXPECT_EQ(code_of([&] { bundle.file("none"); }), Code::bundle_missing_file);
}

TEST_F(BundleFolder, what_a_process_may_not_read_is_an_error_of_the_bundle) {
  const auto code_after = [&](const fs::path& path, fs::perms perms, Code expected) {
    const fs::perms before = fs::status(path).permissions();
    fs::permissions(path, perms);
    EXPECT_TRUE(as_nobody([&] { return code() == expected; })) << path;
    fs::permissions(path, before);
  };
  ASSERT_TRUE(as_nobody([&] { return code() == Code{}; }));
  code_after(folder, fs::perms::owner_exec | fs::perms::others_exec, Code::bundle_missing);  // no list of its files
  code_after(folder, fs::perms::none, Code::bundle_missing_file);
  code_after(folder / "bev.onnx", fs::perms::none, Code::bundle_missing_file);
}

TEST_F(BundleFolder, a_process_without_a_free_file_descriptor_hears_why) {
  const auto says_why = [&] {
    // UndefinedBehaviorSanitizer opens a pipe when it sees the first object of a type.
    Error(Code::bundle_missing_file, "", "", "").problem();
    rlimit limit{3, 3};
    setrlimit(RLIMIT_NOFILE, &limit);
    try {
      Bundle::load(folder.string());
    } catch (const Error& error) {
      return error.code() == Code::bundle_missing_file &&
             error.problem().find(std::generic_category().message(EMFILE)) != std::string::npos;
    }
    return false;
  };
  EXPECT_TRUE(as_nobody(says_why));
}

// Whatever the bytes, the walk stays within them; the sanitizers check it.
TEST(ExternalTensors, any_bytes_are_walked_to_an_end) {
  const std::string good(  // tensors of a graph in an attribute, of the attribute, of the graph
      "\x3a\x18\x0a\x12\x2a\x10\x32\x04\x2a\x02\x70\x00\x2a\x02\x70\x00\x9d\x06\x00\x00\x00\x00\x2a\x02\x70\x00\x08"
      "\x01",
      28);
  ASSERT_EQ(external_tensors(good.data(), good.size()), nullptr);
  std::mt19937 random(7);
  int refused = 0;
  for (int i = 0; i < 300000; ++i) {
    std::string bytes = good;
    for (int changes = 1 + static_cast<int>(random() % 3); changes > 0; --changes)
      bytes[random() % bytes.size()] = static_cast<char>(random());
    bytes.resize(random() % (bytes.size() + 1));
    const std::vector<char> exact(bytes.begin(), bytes.end());  // so that the sanitizer detects a byte beyond
    refused += external_tensors(exact.data(), exact.size()) != nullptr;
  }
  EXPECT_GT(refused, 100);
  EXPECT_EQ(external_tensors(nullptr, 0), nullptr);
}

TEST_F(BundleFolder, every_changed_byte_of_a_file_is_noticed) {
  for (const char* name : {"camera.onnx", "bev.onnx", "golden.npz"}) {
    const std::string good = std::string("content of ") + name;
    for (std::size_t i = 0; i < good.size(); ++i) {
      std::string bad = good;
      bad[i] ^= static_cast<char>(1 << (i % 8));
      write(folder / name, bad);
      ASSERT_EQ(code(), Code::bundle_checksum) << name << " byte " << i;
    }
    write(folder / name, good);
  }
  EXPECT_EQ(code(), Code{});
}

TEST_F(BundleFolder, a_nest_of_brackets_does_not_exhaust_the_stack) {
  for (const char* open : {"[", "{\"a\":"}) {
    std::string deep;
    while (deep.size() < 900000) deep += open;
    EXPECT_EQ(with(deep), Code::bundle_manifest);
    manifest["metrics"] = "PLACE";
    std::string text = manifest.dump();
    std::string closed;
    for (int i = 0; i < 100000; ++i) closed += open;
    closed += *open == '[' ? "" : "1";
    for (int i = 0; i < 100000; ++i) closed += *open == '[' ? "]" : "}";
    text.replace(text.find("\"PLACE\""), 7, closed);
    EXPECT_EQ(with(text), Code::bundle_manifest);
  }
}

TEST_F(BundleFolder, a_manifest_above_one_mebibyte_is_not_read) {
  manifest["provenance"]["note"] = std::string(1 << 20, 'x');
  save();
  EXPECT_EQ(code(), Code::bundle_manifest);
}

// For any mutation of the manifest's text load returns a bundle or throws Error 4xx.
TEST_F(BundleFolder, mutated_manifests_end_in_an_error_of_the_bundle) {
  const std::string good = manifest.dump(1);
  std::mt19937 random(7);
  const char bytes[] = "{}[]\",:0123456789.eE-+nulltrue\\/ \n\x80\xff";  // with its final NUL
  int refused = 0;
  for (int round = 0; round < 1500; ++round) {
    std::string bad = good;
    for (unsigned edits = 1 + random() % 3; edits > 0 && !bad.empty(); --edits) {
      const std::size_t at = random() % bad.size(), length = 1 + random() % 20;
      switch (random() % 4) {
        case 0:
          bad[at] = bytes[random() % sizeof bytes];
          break;
        case 1:
          bad.erase(at, length);
          break;
        case 2:
          bad.insert(at, bad.substr(random() % bad.size(), length));
          break;
        default:
          bad.resize(at);
      }
    }
    const int number = static_cast<int>(with(bad));
    ASSERT_TRUE(number == 0 || (number >= 401 && number <= 410)) << number << "\n" << bad;
    refused += number != 0;
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
