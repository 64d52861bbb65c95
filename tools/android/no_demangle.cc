// The C++ library prints the type of an exception that nobody catches, and brings a demangler of 120 KB for that. There
// are no exceptions here; this takes the demangler's place and says that the name cannot be made readable.
#include <cstddef>

extern "C" char* __cxa_demangle(const char* name, char* buffer, size_t* length, int* status);

extern "C" char* __cxa_demangle(const char*, char*, size_t*, int* status) {
  if (status != nullptr) *status = -2;
  return nullptr;
}
