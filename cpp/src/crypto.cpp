#include "crypto.hpp"

#include <memory>

#include "shared_library.hpp"

namespace imkd {
namespace {

constexpr int kEd25519 = 1087;   // EVP_PKEY_ED25519, NID of OpenSSL
constexpr int kVersionText = 0;  // OPENSSL_VERSION
constexpr const char* kInstall =
    "install OpenSSL 3 (Debian, Ubuntu, JetPack: apt install libssl3, on newer ones libssl3t64), or name no trust "
    "folder";

// The functions of libcrypto, version 1.1.1 to 3, whose types are opaque here.
struct Library {
  using Pointer = void*;
  Pointer (*new_public_key)(int, Pointer, const unsigned char*, std::size_t) = nullptr;
  void (*free_key)(Pointer) = nullptr;
  Pointer (*new_context)() = nullptr;
  void (*free_context)(Pointer) = nullptr;
  int (*verify_init)(Pointer, Pointer*, const void*, Pointer, Pointer) = nullptr;
  int (*verify)(Pointer, const unsigned char*, std::size_t, const unsigned char*, std::size_t) = nullptr;
  int (*digest)(const void*, std::size_t, unsigned char*, unsigned int*, const void*, Pointer) = nullptr;
  const void* (*blake2b512)() = nullptr;
  const char* (*version)(int) = nullptr;
  void (*clear_errors)() = nullptr;
};

template <class Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (!function)
    throw Error(Code::missing_library, std::string("libcrypto has no ") + name, "signature of a bundle", kInstall);
}

Library open() {
  void* opened = open_library("OpenSSL", {"libcrypto.so.3", "libcrypto.so.1.1"}, kInstall, Code::missing_library);
  Library library;
  find(opened, "EVP_PKEY_new_raw_public_key", library.new_public_key);
  find(opened, "EVP_PKEY_free", library.free_key);
  find(opened, "EVP_MD_CTX_new", library.new_context);
  find(opened, "EVP_MD_CTX_free", library.free_context);
  find(opened, "EVP_DigestVerifyInit", library.verify_init);
  find(opened, "EVP_DigestVerify", library.verify);
  find(opened, "EVP_Digest", library.digest);
  find(opened, "EVP_blake2b512", library.blake2b512);
  find(opened, "OpenSSL_version", library.version);
  find(opened, "ERR_clear_error", library.clear_errors);
  return library;
}

const Library& library() {
  static const Library library = open();  // retried after an exception
  return library;
}

[[noreturn]] void refuse(const char* what) {
  library().clear_errors();
  throw Error(Code::missing_library, std::string(library().version(kVersionText)) + " has no " + what,
              "signature of a bundle", "use an OpenSSL that is not limited to FIPS algorithms");
}

const unsigned char* bytes(const std::string& text) { return reinterpret_cast<const unsigned char*>(text.data()); }

}  // namespace

std::string crypto_library() { return library().version(kVersionText); }

bool ed25519_verify(const Ed25519Key& key, const Ed25519Signature& signature, const std::string& message) {
  const Library& crypto = library();
  const std::unique_ptr<void, void (*)(void*)> pkey(crypto.new_public_key(kEd25519, nullptr, key.data(), key.size()),
                                                    crypto.free_key);
  const std::unique_ptr<void, void (*)(void*)> context(crypto.new_context(), crypto.free_context);
  if (!pkey || !context || crypto.verify_init(context.get(), nullptr, nullptr, nullptr, pkey.get()) != 1)
    refuse("Ed25519");
  const bool valid =
      crypto.verify(context.get(), signature.data(), signature.size(), bytes(message), message.size()) == 1;
  crypto.clear_errors();  // a false signature leaves one in the thread's queue, which other users of OpenSSL read
  return valid;
}

std::string blake2b_512(const std::string& message) {
  const Library& crypto = library();
  unsigned char digest[64] = {};
  unsigned int size = 0;
  const void* algorithm = crypto.blake2b512();
  if (!algorithm || crypto.digest(message.data(), message.size(), digest, &size, algorithm, nullptr) != 1 ||
      size != sizeof digest)
    refuse("BLAKE2b-512");
  return {reinterpret_cast<const char*>(digest), sizeof digest};
}

}  // namespace imkd
