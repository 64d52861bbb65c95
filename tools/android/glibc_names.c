// What Debian's libc++ and libunwind, which are built for glibc, ask for by glibc's names: SHARED for libraries, in
// terms of Android's names; without, what musl lacks, for static programs. Only in the stand-in that registry_ndk.sh
// makes.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC visibility push(hidden)

int __fprintf_chk(FILE* file, int flag, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int written = vfprintf(file, format, arguments);
  va_end(arguments);
  return written;
}

int __vfprintf_chk(FILE* file, int flag, const char* format, va_list arguments) {
  return vfprintf(file, format, arguments);
}

int __vasprintf_chk(char** text, int flag, const char* format, va_list arguments) {
  return vasprintf(text, format, arguments);
}

#ifdef SHARED
extern __attribute__((visibility("default"))) int* __errno(void);
extern __attribute__((visibility("default"))) void __assert2(const char*, int, const char*, const char*);

int* __errno_location(void) { return __errno(); }

void __assert_fail(const char* what, const char* file, unsigned line, const char* function) {
  __assert2(file, (int)line, function, what);
  __builtin_trap();
}

int bcmp(const void* a, const void* b, size_t size) { return memcmp(a, b, size); }

void* aligned_alloc(size_t alignment, size_t size) {
  void* memory = NULL;
  return posix_memalign(&memory, alignment, size) == 0 ? memory : NULL;
}

#ifdef __x86_64__
// Android 8.0 has no thread-local variables of ELF's kind; here only exceptions, of which there are none, have some.
void* __tls_get_addr(void* index) { __builtin_trap(); }
#endif
#endif
