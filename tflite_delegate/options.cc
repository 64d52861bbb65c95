#include "tflite_delegate/options.h"

#include <cstring>

namespace block_sparse {

namespace {

constexpr int kMaxThreads = 64;

bool ParseThreads(const char* text, int* threads) {
  int value = 0;
  for (const char* c = text; *c != '\0'; c++) {
    if (*c < '0' || *c > '9' || c - text > 3) return false;
    value = value * 10 + (*c - '0');
  }
  if (value < 1 || value > kMaxThreads) return false;
  *threads = value;
  return true;
}

bool ParseBool(const char* text, bool* value) {
  *value = strcmp(text, "1") == 0 || strcmp(text, "true") == 0;
  return *value || strcmp(text, "0") == 0 || strcmp(text, "false") == 0;
}

std::string LevelNames() {
  std::string names = "auto";
  for (const kernels::KernelTable* const* t = kernels::AvailableKernels(); *t != nullptr; t++) {
    names += std::string(", ") + (*t)->name;
  }
  return names;
}

}  // namespace

bool ParseDelegateOptions(const char* const* keys, const char* const* values, size_t count, DelegateOptions* options,
                          std::string* error) {
  const char* cpu = "auto";
  for (size_t i = 0; i < count; i++) {
    if (keys == nullptr || values == nullptr || keys[i] == nullptr || values[i] == nullptr) {
      *error = "option number " + std::to_string(i) + " has no key or no value";
      return false;
    }
    const std::string key = keys[i];
    const std::string got = "option `" + key + "` is \"" + values[i] + "\"";
    if (key == "num_threads") {
      if (!ParseThreads(values[i], &options->num_threads)) {
        *error = got + "; expected a whole number from 1 to " + std::to_string(kMaxThreads);
        return false;
      }
    } else if (key == "cpu") {
      cpu = values[i];
      if (kernels::SelectKernels(cpu) == nullptr) {
        *error = got + "; on this CPU it can be " + LevelNames();
        return false;
      }
    } else if (key == "verbose" || key == "profile") {
      if (!ParseBool(values[i], key == "verbose" ? &options->verbose : &options->profile)) {
        *error = got + "; expected 0, 1, true or false";
        return false;
      }
    } else if (key == "report_path") {
      options->report_path = values[i];
    } else if (key == "tuning_path") {
      options->tuning_path = values[i];
    } else {
      *error = "unknown option `" + key + "`; known are num_threads, cpu, verbose, profile, report_path, tuning_path";
      return false;
    }
  }
  options->kernels = kernels::SelectKernels(cpu);
  return true;
}

}  // namespace block_sparse
