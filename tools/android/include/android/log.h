// What a library needs of Android's log; for the stand-in that registry_ndk.sh makes. The NDK has its own.
#ifndef TOOLS_ANDROID_INCLUDE_ANDROID_LOG_H_
#define TOOLS_ANDROID_INCLUDE_ANDROID_LOG_H_

#ifdef __cplusplus
extern "C" {
#endif

enum { ANDROID_LOG_INFO = 4, ANDROID_LOG_WARN = 5, ANDROID_LOG_ERROR = 6 };

int __android_log_write(int priority, const char* tag, const char* text);

#ifdef __cplusplus
}
#endif

#endif  // TOOLS_ANDROID_INCLUDE_ANDROID_LOG_H_
