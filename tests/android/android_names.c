// Android's names for what glibc has under others, so that a library built for Android loads in a program of glibc's.
// Built as libc.so, libm.so, libdl.so and liblog.so; whatever else the library calls, glibc gives it by the same name.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int* __errno(void) { return &errno; }

size_t __strlen_chk(const char* text, size_t size) {
  const size_t length = strlen(text);
  if (length >= size) abort();
  return length;
}

void __assert2(const char* file, int line, const char* function, const char* what) {
  fprintf(stderr, "%s:%d: %s: %s\n", file, line, function, what);
  abort();
}

void android_set_abort_message(const char* text) { fprintf(stderr, "%s\n", text); }

int __system_property_get(const char* name, char* value) {
  (void)name;
  value[0] = '\0';
  return 0;
}

int __android_log_write(int priority, const char* tag, const char* text) {
  return fprintf(stderr, "log %d %s: %s\n", priority, tag, text);
}

int __android_log_vprint(int priority, const char* tag, const char* format, __builtin_va_list arguments) {
  const int written = fprintf(stderr, "log %d %s: ", priority, tag);
  return written + vfprintf(stderr, format, arguments) + fprintf(stderr, "\n");
}
