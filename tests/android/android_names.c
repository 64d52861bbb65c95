// Android's names for what glibc has under others, so that libraries built for Android run in a program of glibc's.
// Built as libc.so, libm.so, libdl.so and liblog.so; whatever else such a library calls, glibc gives it by the same
// name.
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

int __android_log_vprint(int priority, const char* tag, const char* format, va_list arguments) {
  const int written = fprintf(stderr, "log %d %s: ", priority, tag);
  return written + vfprintf(stderr, format, arguments) + fprintf(stderr, "\n");
}

// Before API 23 the standard streams are elements of an array, 152 bytes each. Functions that take a stream, and
// sysconf, whose constants differ, are renamed in the library that calls them (runtime.py): the last letter becomes
// "_".
#define STREAM_SIZE 152
char __sF[3 * STREAM_SIZE];

static FILE* stream(FILE* file) {
  const char* address = (const char*)file;
  if (address < __sF || address >= __sF + sizeof __sF) return file;
  FILE* const standard[] = {stdin, stdout, stderr};
  return standard[(address - __sF) / STREAM_SIZE];
}

int vfprint_(FILE* file, const char* format, va_list arguments) { return vfprintf(stream(file), format, arguments); }

int fprint_(FILE* file, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int written = vfprintf(stream(file), format, arguments);
  va_end(arguments);
  return written;
}

int fput_(int character, FILE* file) { return fputc(character, stream(file)); }

size_t fwrit_(const void* data, size_t size, size_t count, FILE* file) {
  return fwrite(data, size, count, stream(file));
}

int fflus_(FILE* file) { return fflush(file == NULL ? NULL : stream(file)); }

long syscon_(int name) {
  switch (name) {
    case 39:
    case 40:
      return sysconf(_SC_PAGESIZE);
    case 96:
      return sysconf(_SC_NPROCESSORS_CONF);
    case 97:
      return sysconf(_SC_NPROCESSORS_ONLN);
    default:
      return -1;
  }
}
