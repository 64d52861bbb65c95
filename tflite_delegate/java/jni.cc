// The native side of BlockSparseDelegate.java.
#include <jni.h>

#include <string>
#include <vector>

#include "tflite_delegate/delegate.h"
#include "tflite_delegate/options.h"

namespace {

// Leaves an exception of Java's pending; the caller returns at once.
void Throw(JNIEnv* env, const char* type, const std::string& message) {
  const jclass exception = env->FindClass(type);
  if (exception != nullptr) env->ThrowNew(exception, message.c_str());
}

// False, with an exception pending, if an element is null or memory is short.
bool CopyStrings(JNIEnv* env, jobjectArray array, std::vector<std::string>* strings) {
  const jsize count = env->GetArrayLength(array);
  for (jsize i = 0; i < count; i++) {
    const jstring element = static_cast<jstring>(env->GetObjectArrayElement(array, i));
    if (element == nullptr) {
      Throw(env, "java/lang/NullPointerException", "an option has no key or no value");
      return false;
    }
    const char* text = env->GetStringUTFChars(element, nullptr);
    if (text == nullptr) return false;
    strings->push_back(text);
    env->ReleaseStringUTFChars(element, text);
    env->DeleteLocalRef(element);
  }
  return true;
}

}  // namespace

extern "C" {

JNIEXPORT jlong JNICALL Java_blocksparse_tflite_BlockSparseDelegate_create(JNIEnv* env, jclass, jobjectArray keys,
                                                                           jobjectArray values) {
  std::vector<std::string> texts;
  if (!CopyStrings(env, keys, &texts)) return 0;
  const size_t count = texts.size();
  if (!CopyStrings(env, values, &texts)) return 0;
  std::vector<const char*> pointers;
  for (const std::string& text : texts) pointers.push_back(text.c_str());
  block_sparse::DelegateOptions options;
  std::string error;
  if (!block_sparse::ParseDelegateOptions(pointers.data(), pointers.data() + count, count, &options, &error)) {
    Throw(env, "java/lang/IllegalArgumentException", error);
    return 0;
  }
  TfLiteDelegate* delegate = block_sparse::CreateDelegate(options);
  if (delegate == nullptr) Throw(env, "java/lang/OutOfMemoryError", "no memory for a delegate");
  return reinterpret_cast<jlong>(delegate);
}

JNIEXPORT jstring JNICALL Java_blocksparse_tflite_BlockSparseDelegate_cpuLevel(JNIEnv* env, jclass, jlong handle) {
  return env->NewStringUTF(block_sparse::CpuLevel(reinterpret_cast<TfLiteDelegate*>(handle)));
}

JNIEXPORT void JNICALL Java_blocksparse_tflite_BlockSparseDelegate_destroy(JNIEnv*, jclass, jlong handle) {
  block_sparse::DestroyDelegate(reinterpret_cast<TfLiteDelegate*>(handle));
}

}  // extern "C"
