#!/usr/bin/env bash
# Brings what the project needs from package registries alone, on Debian 12 with Python 3.10 to 3.12:
#   setup.sh [python] [build] [aarch64] [android] [apk] [screen] [data]      (default: all but screen)
# python:  .venv with the package and its development tools
# build:   compiler, Bazel, TensorFlow Lite's C headers, googletest
# aarch64: cross compiler, qemu, and under build/aarch64-root a Python with LiteRT for AArch64
# android: clang, lld, Java, Maven, and under build/android-ndk a stand-in for the Android NDK
# apk:     what the demo app's .apk is built with: Android's classes (130 MB), dexer, packager, signer, TensorFlow Lite
# screen:  Robolectric, which runs the demo app's screen without a phone (400 MB)
# data:    the Fashion-MNIST images of the demo
# What is already there is left alone. System packages need root or sudo, and only if one is missing. On another system
# than Debian Python's part works as it is, Bazelisk replaces the build's, and the others are left to the user.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
setup=$root/build/setup
mkdir -p "$setup"
[ $# -gt 0 ] || set -- python build aarch64 android apk data

say() { echo "setup: $*" >&2; }
fail() { echo "setup: $*" >&2; exit 1; }

# run WHAT COMMAND...: says what is going on and for how long it went on; the command's output is seen if it fails.
# (A function's steps are joined by &&: the shell does not stop at a failing one inside a condition.)
run() {
  local what=$1 log=$setup/log started=$SECONDS
  shift
  say "$what ..."
  if ! "$@" > "$log" 2>&1 < /dev/null; then
    tail -n 40 "$log" >&2
    fail "$what failed; the whole log is $log"
  fi
  say "$what: done in $((SECONDS - started)) s"
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"
  elif command -v sudo > /dev/null; then sudo "$@"
  else fail "system packages are missing ($*): run this as root or install sudo"
  fi
}

apt_update() { as_root apt-get -q update; }
apt_install() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends -o Acquire::Retries=3 install "$@"
}

on_debian() { grep -qsx 'ID=debian' /etc/os-release; }

system_packages() {
  on_debian || fail "this is not Debian: install by hand what these packages of Debian's hold: $*"
  local missing=() package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  run "package lists" apt_update
  run "system packages (${missing[*]})" apt_install "${missing[@]}"
}

# --- python -----------------------------------------------------------------------------------------------------------

supported() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2> /dev/null; }

make_venv() {
  local python
  for python in ${PYTHON:-python3.11 python3.12 python3.10 python3}; do
    if supported "$python"; then
      "$python" -c 'import ensurepip, venv' 2> /dev/null || system_packages "$(basename "$(readlink -f \
        "$(command -v "$python")")")-venv"
      run "virtual environment (.venv)" "$python" -m venv .venv
      return
    fi
  done
  fail "no Python 3.10, 3.11 or 3.12 found; name one with PYTHON=..."
}

pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

setup_python() {
  local want stamp=.venv/.project-installed
  [ -x .venv/bin/python ] && supported .venv/bin/python || make_venv
  want="$(cat pyproject.toml tools/constraints.txt | sha256sum) $root"
  [ "$(cat $stamp 2> /dev/null)" = "$want" ] && return
  run "pip and setuptools" pip install -q --progress-bar off -c tools/constraints.txt pip setuptools
  run "Python packages (TensorFlow is 600 MB: minutes on a slow line)" \
    pip install -q --progress-bar off -c tools/constraints.txt --no-build-isolation -e '.[dev]'
  echo "$want" > $stamp
}

# --- build ------------------------------------------------------------------------------------------------------------

# local_repository NAME BUILD_FILE [SOURCE...]: a Bazel repository of links to SOURCE's.
local_repository() {
  local folder=$setup/repositories/$1 build_file=$2
  shift 2
  mkdir -p "$folder"
  touch "$folder/WORKSPACE"
  ln -sfn "$root/third_party/$build_file" "$folder/BUILD.bazel"
  local source
  for source in "$@"; do ln -sfn "$source" "$folder/$(basename "$source")"; done
}

# write_if_changed FILE: a file whose time does not change needlessly, so that Bazel does not start over.
write_if_changed() {
  local new
  new=$(cat)
  [ "$(cat "$1" 2> /dev/null)" = "$new" ] || { echo "$new" > "$1.new" && mv "$1.new" "$1"; }
}

overrides() {
  local command entry
  for command in build fetch query sync; do
    for entry in "$@"; do echo "$command --override_repository=$entry"; done
  done
}

fetch_tflite_headers() {
  local new=$setup/tflite.new architecture
  architecture=$(dpkg --print-architecture)
  rm -rf "$new" &&
    { tools/private_apt.sh sid "$architecture" "$new" libtensorflow-lite-dev ||
      tools/private_apt.sh forky "$architecture" "$new" libtensorflow-lite-dev; } &&
    mv "$new" "$setup/tflite"
}

setup_build() {
  if ! on_debian; then
    say "not Debian: Bazel itself downloads what the build needs (install Bazelisk and a C++ compiler)"
    return
  fi
  system_packages make g++ bazel-bootstrap bazel-platforms bazel-skylib bazel-rules-java bazel-rules-proto \
    googletest libbenchmark-dev
  [ -d "$setup/tflite" ] || run "TensorFlow Lite's C headers" fetch_tflite_headers
  local_repository tflite_headers tflite_headers.BUILD "$setup/tflite/usr/include/tensorflow"
  local_repository googletest googletest.BUILD /usr/src/googletest/googletest /usr/src/googletest/googlemock
  local_repository google_benchmark google_benchmark_system.BUILD
  overrides tflite_headers="$setup/repositories/tflite_headers" googletest="$setup/repositories/googletest" \
    google_benchmark="$setup/repositories/google_benchmark" | write_if_changed "$setup/repositories.bazelrc"
  overrides rules_cc="$root/third_party/bazel4/rules_cc" \
    remote_coverage_tools="$root/third_party/bazel4/remote_coverage_tools" \
    rules_java=/usr/share/bazel/rules/java rules_proto=/usr/share/bazel/rules/proto |
    write_if_changed "$setup/bazel4.bazelrc"
}

# --- aarch64 ----------------------------------------------------------------------------------------------------------

aarch64_versions() { grep -E '^(ai-edge-litert|numpy|ml_dtypes)==' tools/constraints.txt; }

# The runtime reads the CPU's identity from /proc/cpuinfo; under qemu it would see the host's and stop.
cortex_a76_cpuinfo() {
  local cpu
  for cpu in 0 1; do
    printf '%s\t: %s\n' processor $cpu BogoMIPS 100.00 \
      Features 'fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs' \
      'CPU implementer' 0x41 'CPU architecture' 8 'CPU variant' 0x4 'CPU part' 0xd0b 'CPU revision' 0
    echo
  done
}

fetch_aarch64_root() {
  local new=$root/build/aarch64-root.new
  rm -rf "$new" &&
    tools/private_apt.sh bookworm arm64 "$new" python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 \
      libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8 libbz2-1.0 liblzma5 &&
    pip install -q --progress-bar off -c tools/constraints.txt --target "$new/site-packages" --only-binary=:all: \
      --platform manylinux_2_27_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
      --python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none ai-edge-litert &&
    mkdir "$new/proc" &&
    cortex_a76_cpuinfo > "$new/proc/cpuinfo" &&
    rm -rf "$root/build/aarch64-root" &&
    mv "$new" "$root/build/aarch64-root" &&
    aarch64_versions > "$setup/aarch64-root"
}

setup_aarch64() {
  setup_python
  system_packages g++-aarch64-linux-gnu qemu-user
  [ "$(cat "$setup/aarch64-root" 2> /dev/null)" = "$(aarch64_versions)" ] ||
    run "Python and LiteRT for AArch64 (build/aarch64-root)" fetch_aarch64_root
}

# --- android ----------------------------------------------------------------------------------------------------------

android_sources() { cat tools/android/registry_ndk.sh tools/android/bionic_api26.txt tools/android/glibc_names.c \
  tools/android/include/*/* | sha256sum; }

make_registry_ndk() {
  local new=$root/build/android-ndk.new
  rm -rf "$new" &&
    tools/android/registry_ndk.sh "$new" &&
    rm -rf "$root/build/android-ndk" &&
    mv "$new" "$root/build/android-ndk" &&
    android_sources > "$setup/android-ndk"
}

setup_android() {
  system_packages clang-19 lld-19 llvm-19 openjdk-17-jdk-headless maven
  [ "$(cat "$setup/android-ndk" 2> /dev/null)" = "$(android_sources)" ] ||
    run "stand-in for the Android NDK (build/android-ndk)" make_registry_ndk
}

# fetch_artifact NAME COORDINATES: from where Maven fetches, to build/android-jars.
fetch_artifact() {
  local folder=$root/build/android-jars new=$setup/artifact
  rm -rf "$new" && mkdir -p "$folder" &&
    mvn --quiet --batch-mode org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
      -Dartifact="$2" -DoutputDirectory="$new" &&
    mv "$new"/* "$folder/$1"
}

setup_apk() {
  system_packages openjdk-17-jdk-headless maven aapt zipalign apksigner android-framework-res
  local entry name
  for entry in android-all.jar=org.robolectric:android-all:10-robolectric-5803371 \
    dalvik-dx.jar=com.jakewharton.android.repackaged:dalvik-dx:14.0.0_r21 \
    tensorflow-lite.aar=org.tensorflow:tensorflow-lite:2.16.1:aar \
    tensorflow-lite-api.aar=org.tensorflow:tensorflow-lite-api:2.16.1:aar; do
    name=${entry%%=*}
    [ -f "$root/build/android-jars/$name" ] || run "$name" fetch_artifact "$name" "${entry#*=}"
  done
}

fetch_robolectric() {
  local new=$root/build/robolectric.new aar sdk=14-robolectric-10818077-i4
  rm -rf "$new" "$root/build/robolectric" && mkdir -p "$new" &&
    mvn --quiet --batch-mode --file tests/android/robolectric.xml \
      org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies -DoutputDirectory="$new" &&
    for aar in "$new"/*.aar; do
      python3 -m zipfile -e "$aar" "$new/unpacked" && mv "$new/unpacked/classes.jar" "${aar%.aar}.jar" &&
        rm -rf "$aar" "$new/unpacked" || return
    done &&
    mvn --quiet --batch-mode org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
      -Dartifact=org.robolectric:android-all-instrumented:$sdk -DoutputDirectory="$new/sdk" &&
    mv "$new" "$root/build/robolectric"
}

setup_screen() {
  setup_apk
  [ -d "$root/build/robolectric" ] || run "Robolectric (build/robolectric)" fetch_robolectric
}

setup_data() { system_packages dataset-fashion-mnist; }

for part in "$@"; do
  case $part in
    python | build | aarch64 | android | apk | screen | data) "setup_$part" ;;
    *) fail "unknown part '$part'; there are: python build aarch64 android apk screen data" ;;
  esac
done
