// An engine file is loaded only where every element of its key matches; the Python package writes these files.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "engine/engine_file.hpp"
#include "fakes.hpp"

using namespace imkd;
using imkd::fakes::code_of;
using nlohmann::json;
namespace fs = std::filesystem;

namespace {

const Machine kOrin{"10.3.0", "12.6", "540.4.0", "Orin", "87"};
// sha256sum of "engine" and of "onnx", by coreutils
constexpr const char* kEngineHash = "ed9f6f25068608efd412958da4dfc19328ca3511251fa6d5f9c42baf230e32f8";
constexpr const char* kOnnxHash = "87e93f89f2be0db364e8be052f79f389e6c2da239831922e24513288af522a43";

void write(const fs::path& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

class EngineFileTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("imkd_engine_file_" + std::to_string(::getpid()));
    fs::create_directories(folder_ / "m.imkd");
    fs::create_directories(folder_ / "m.engines");
    write(onnx(), "onnx");
    write(engine(), "engine");
    fs::permissions(engine(), fs::perms::owner_read | fs::perms::owner_write);
    record_ = {{"key",
                {{"onnx_sha256", kOnnxHash},
                 {"tensorrt", "tensorrt 10.3.0"},
                 {"cuda", "12.6"},
                 {"driver", "540.4.0"},
                 {"gpu", "Orin"},
                 {"sm", "87"},
                 {"flags", {{"dla", nullptr}, {"io", "auto"}, {"precision", "float16"}, {"workspace_mb", 512}}}}},
               {"engine", {{"sha256", kEngineHash}, {"bytes", 6}}}};
    save();
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path onnx() const { return folder_ / "m.imkd" / "camera.onnx"; }
  fs::path engine() const { return folder_ / "m.engines" / "camera.engine"; }
  fs::path card() const { return engine().string() + ".json"; }
  void save() const { write(card(), record_.dump(2)); }
  EngineFile read(const Machine& machine = kOrin) const { return read_engine_file(engine().string(), machine); }
  std::string reasons(const Machine& machine = kOrin) const {
    try {
      read_engine_file(onnx().string(), machine);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::engine_stale) << error.what();
      EXPECT_NE(error.fix().find("build-engine"), std::string::npos);
      return error.problem();
    }
    return "";
  }

  fs::path folder_;
  json record_;
};

TEST_F(EngineFileTest, its_own_machine_reads_it) {
  const EngineFile file = read();
  EXPECT_EQ(file.bytes, "engine");
  EXPECT_EQ(file.path, engine().string());
  EXPECT_EQ(file.dla, -1);
}

TEST_F(EngineFileTest, an_onnx_part_finds_its_engine_beside_the_bundle) {
  EXPECT_EQ(reasons(), "");
  EXPECT_EQ(read_engine_file(onnx().string(), kOrin).path, engine().string());
  write(onnx(), "another model");
  EXPECT_NE(reasons().find("onnx_sha256"), std::string::npos);
}

TEST_F(EngineFileTest, every_element_of_the_machine_counts) {
  const struct {
    const char* name;
    std::function<void(Machine&)> change;
  } cases[] = {{"tensorrt", [](Machine& m) { m.tensorrt = "10.3.1"; }},
               {"cuda", [](Machine& m) { m.cuda = "13.0"; }},
               {"driver", [](Machine& m) { m.driver = "580.82.07"; }},
               {"gpu", [](Machine& m) { m.gpu = "Orin NX"; }},
               {"sm", [](Machine& m) { m.sm = "110"; }}};
  for (const auto& [name, change] : cases) {
    Machine other = kOrin;
    change(other);
    EXPECT_EQ(reasons(other).rfind(name, 0), 0u) << name << ": " << reasons(other);
  }
}

TEST_F(EngineFileTest, a_build_number_behind_tensorrts_version_is_no_difference) {
  const auto built_with = [&](const char* tensorrt) {
    record_["key"]["tensorrt"] = tensorrt;
    save();
    return reasons();
  };
  EXPECT_EQ(built_with("tensorrt 10.3.0.26"), "");
  EXPECT_NE(built_with("tensorrt 10.3.01"), "");
  EXPECT_NE(built_with("tensorrt_rtx 10.3.0"), "") << "TensorRT for RTX builds for another runtime";
}

TEST_F(EngineFileTest, a_changed_byte_is_seen) {
  write(engine(), "enginE");
  EXPECT_NE(reasons().find("SHA-256 is not the one in camera.engine.json"), std::string::npos);
}

TEST_F(EngineFileTest, an_engine_that_other_users_can_change_is_stale) {
  for (const fs::perms others : {fs::perms::group_write, fs::perms::others_write}) {
    fs::permissions(engine(), others, fs::perm_options::add);
    EXPECT_NE(reasons().find("other users can change it"), std::string::npos);
    fs::permissions(engine(), others, fs::perm_options::remove);
  }
  EXPECT_EQ(reasons(), "");
}

TEST_F(EngineFileTest, it_is_bound_to_the_content_that_was_checked_not_to_the_file_of_now) {
  write(onnx(), "another model");
  EXPECT_EQ(read_engine_file(onnx().string(), kOrin, "onnx").bytes, "engine");
  write(onnx(), "onnx");
  EXPECT_EQ(code_of([&] { read_engine_file(onnx().string(), kOrin, "another model"); }), Code::engine_stale);
}

TEST_F(EngineFileTest, the_dla_core_is_read) {
  record_["key"]["flags"]["dla"] = 1;
  save();
  EXPECT_EQ(read().dla, 1);
}

TEST_F(EngineFileTest, an_engine_without_a_record_is_not_loaded) {
  fs::remove(card());
  EXPECT_EQ(code_of([&] { read(); }), Code::engine_load);
  fs::remove(engine());
  EXPECT_EQ(code_of([&] { read(); }), Code::engine_load);
  fs::create_directory(engine());  // a folder can be opened, but not read
  EXPECT_EQ(code_of([&] { read(); }), Code::engine_load);
}

TEST_F(EngineFileTest, a_broken_record_is_stale_never_a_crash) {
  for (const char* text : {"", "{", "[]", "null", "{\"key\": {}}", "\xff\xfe"}) {
    write(card(), text);
    EXPECT_NE(reasons().find("cannot be read"), std::string::npos) << text;
  }
  for (const char* pointer : {"/key/cuda", "/key/flags", "/engine/sha256", "/key/flags/dla"}) {
    json broken = record_;
    broken[json::json_pointer(pointer)] = json::array();
    write(card(), broken.dump());
    EXPECT_NE(reasons(), "") << pointer;
  }
  json newer = record_;
  newer["key"]["cudnn"] = "9";
  write(card(), newer.dump());
  EXPECT_NE(reasons().find("cudnn"), std::string::npos);
}

TEST_F(EngineFileTest, the_drivers_version) {
  const std::string driver = (folder_ / "version").string(), tegra = (folder_ / "tegra").string();
  EXPECT_EQ(driver_version(driver, tegra), "unknown");
  write(tegra, "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n");
  EXPECT_EQ(driver_version(driver, tegra), "R36.4.3");
  write(driver, "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build  (buildbrain)\n");
  EXPECT_EQ(driver_version(driver, tegra), "540.4.0");
  write(driver, "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.82.07  Wed Aug 27 17:36:24 UTC 2025\n");
  EXPECT_EQ(driver_version(driver, tegra), "580.82.07");
}

}  // namespace
