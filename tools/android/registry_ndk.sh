#!/usr/bin/env bash
# Makes a stand-in for the Android NDK from Debian's packages, for machines without one and continuous integration:
#   registry_ndk.sh FOLDER [CPU...]     CPU: aarch64 (default), x86_64
# It is laid out as an NDK, so that the very toolchain that takes a real one (toolchain.bzl) takes it. The compiler and
# linker are Debian's, the C headers musl's, jni.h the JDK's, libc++ Debian's; libc, libm, libdl and liblog are empty
# functions under the names that Android has (bionic_api26.txt): what Android lacks does not link. Libraries linked with
# it show what a build with the NDK would need of a device. Programs linked statically run under qemu. Neither is to be
# shipped.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
folder=$1
shift
[ $# -gt 0 ] || set -- aarch64
llvm=/usr/lib/llvm-19
api=26
prebuilt=$folder/toolchains/llvm/prebuilt/linux-x86_64
sysroot=$prebuilt/sysroot
runtime=$prebuilt/lib/clang/19
debs=$(mktemp -d)
trap 'rm -rf "$debs"' EXIT

# A copy of the driver looks for everything beside itself.
mkdir -p "$prebuilt/bin" "$runtime/lib/linux" "$sysroot/usr/include"
cp -L "$llvm/bin/clang" "$prebuilt/bin/clang"
ln -sfn clang "$prebuilt/bin/clang++"
for tool in llvm-ar llvm-nm llvm-objcopy llvm-objdump llvm-readelf llvm-strip; do
  ln -sfn "$llvm/bin/$tool" "$prebuilt/bin/$tool"
done
ln -sfn "$llvm/bin/lld" "$prebuilt/bin/ld.lld"
ln -sfn "$llvm/lib/clang/19/include" "$runtime/include"
cp -r "$here/include/." "$sysroot/usr/include/"
java=$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")
cp "$java/include/jni.h" "$java/include/linux/jni_md.h" "$sysroot/usr/include/"

names() { awk -v section="[$1]" '/^#/ { next } /^\[/ { on = $0 == section; next } on' "$here/bionic_api26.txt"; }

for cpu in "$@"; do
  case $cpu in
    aarch64) debian=arm64 ;;
    x86_64) debian=amd64 ;;
    *) echo "registry_ndk.sh: unknown CPU '$cpu'; there are aarch64 and x86_64" >&2; exit 1 ;;
  esac
  from=$debs/$cpu
  "$root/tools/private_apt.sh" bookworm $debian "$from" musl-dev libc++-19-dev libc++abi-19-dev libunwind-19-dev \
    libclang-rt-19-dev

  triple=$cpu-linux-android
  lib=$sysroot/usr/lib/$triple/$api
  mkdir -p "$lib" "$runtime/lib/linux/$cpu" "$sysroot/usr/include/$triple" "$sysroot/usr/include/c++"
  cp -r "$from/usr/include/$cpu-linux-musl/." "$sysroot/usr/include/"
  rm -rf "$sysroot/usr/include/$triple/bits" "$sysroot/usr/include/c++/v1"
  mv "$sysroot/usr/include/bits" "$sysroot/usr/include/$triple/bits" # the only headers that differ between CPUs
  cp -r "$from$llvm/include/c++/v1" "$sysroot/usr/include/c++/v1"
  # Locales need headers of Android's; the delegate uses no streams.
  sed -i 's/^#define _LIBCPP_ABI_VERSION .*/&\n#define _LIBCPP_HAS_NO_LOCALIZATION/' \
    "$sysroot/usr/include/c++/v1/__config_site"
  cp "$from$llvm/lib/libc++.a" "$sysroot/usr/lib/$triple/libc++_static.a"
  cp "$from$llvm/lib/libc++abi.a" "$sysroot/usr/lib/$triple/libc++abi.a"
  echo "INPUT(-lc++_static -lc++abi)" > "$lib/libc++.a"
  cp "$from$llvm/lib/clang/19/lib/linux/libclang_rt.builtins-$cpu.a" \
    "$runtime/lib/linux/libclang_rt.builtins-$cpu-android.a"
  cp "$from$llvm/lib/libunwind.a" "$runtime/lib/linux/$cpu/libunwind.a"

  compile=("$prebuilt/bin/clang" "--target=$triple$api" "--sysroot=$sysroot" -fPIC -O1)
  for library in libc libm libdl liblog; do
    for name in $(names $library); do echo "void $name(void) {}"; done |
      "${compile[@]}" -w -fno-builtin -x c - -shared -nostdlib -fuse-ld=lld "-Wl,-soname,$library.so" \
        -o "$lib/$library.so"
  done
  # Debian's libraries were built for glibc.
  "${compile[@]}" -c -w -DSHARED -ffunction-sections "$here/glibc_names.c" -o "$debs/shared_names.o"
  "${compile[@]}" -c -w -ffunction-sections "$here/glibc_names.c" -o "$debs/static_names.o"
  for empty in libpthread.a librt.a; do "$prebuilt/bin/llvm-ar" rc "$sysroot/usr/lib/$triple/$empty"; done

  # A library's first and last words, as Android has them.
  "${compile[@]}" -c -x c - -o "$debs/crtbegin_so.o" << 'EOF'
extern void __cxa_finalize(void*);
__attribute__((visibility("hidden"))) void* __dso_handle = &__dso_handle;
__attribute__((destructor)) static void finalize(void) { __cxa_finalize(&__dso_handle); }
EOF
  "$prebuilt/bin/ld.lld" -r "$debs/crtbegin_so.o" "$debs/shared_names.o" -o "$lib/crtbegin_so.o"
  "${compile[@]}" -c -x c /dev/null -o "$lib/crtend_so.o"

  # Programs are linked with musl itself, and so can run here; only statically.
  musl=$from/usr/lib/$cpu-linux-musl
  "$prebuilt/bin/ld.lld" -r "$musl/crt1.o" "$musl/crti.o" "$musl/crtn.o" -o "$lib/crtbegin_static.o"
  "${compile[@]}" -c -x c /dev/null -o "$lib/crtend_android.o"
  cp "$musl/libc.a" "$musl/libm.a" "$musl/libdl.a" "$sysroot/usr/lib/$triple/"
  "$prebuilt/bin/llvm-ar" r "$sysroot/usr/lib/$triple/libc.a" "$debs/static_names.o"
done

cat > "$folder/source.properties" << 'EOF'
Pkg.Desc = Stand-in for the Android NDK, made from Debian's packages
Pkg.Revision = 26.0.0
EOF
