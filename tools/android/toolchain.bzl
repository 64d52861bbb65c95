"""C++ toolchains of the Android NDK that ANDROID_NDK_HOME names; nothing is downloaded.

    load("//tools/android:toolchain.bzl", "android_toolchains")
    android_toolchains(name = "android_toolchains")

defines @android_toolchains//:arm64 and :x86_64, which the configurations android_arm64 and android_x86_64 of .bazelrc
choose. The repository is made when one of them is used first; before, no NDK is looked for.
"""

_OLDEST_NDK = 26
_API = 26

# Bazel's CPU -> the compiler's.
_CPUS = {
    "arm64": "aarch64",
    "x86_64": "x86_64",
}

_HELP = ("Install one (Android Studio: SDK Manager, SDK Tools, NDK (Side by side)) and name its folder, " +
         "the one that holds source.properties: export ANDROID_NDK_HOME=.../ndk/26.3.11579264")

_BUILD = """load("@bazel_tools//tools/cpp:unix_cc_toolchain_config.bzl", "cc_toolchain_config")

package(default_visibility = ["//visibility:public"])

filegroup(name = "none")
"""

_TOOLCHAIN = """
toolchain(
    name = "{cpu}",
    target_compatible_with = ["@platforms//cpu:{constraint}", "@platforms//os:android"],
    toolchain = ":{cpu}_cc",
    toolchain_type = "@bazel_tools//tools/cpp:toolchain_type",
)

cc_toolchain(
    name = "{cpu}_cc",
    all_files = ":none",
    compiler_files = ":none",
    dwp_files = ":none",
    linker_files = ":none",
    objcopy_files = ":none",
    strip_files = ":none",
    supports_param_files = True,
    toolchain_config = ":{cpu}_config",
    toolchain_identifier = "android-{cpu}",
)

cc_toolchain_config(
    name = "{cpu}_config",
    abi_libc_version = "bionic",
    abi_version = "android-{api}",
    compile_flags = [
        "--target={target}",
        "--sysroot={sysroot}",
        "-no-canonical-prefixes",
        "-fstack-protector",
    ],
    compiler = "clang",
    cpu = "{cpu}",
    cxx_builtin_include_directories = ["{root}"],
    host_system_name = "local",
    # 16 KB: what devices with such pages need. Without text relocations and undefined names the library loads anywhere.
    link_flags = [
        "--target={target}",
        "--sysroot={sysroot}",
        "-no-canonical-prefixes",
        "-fuse-ld=lld",
        "-rtlib=compiler-rt",
        "-unwindlib=libunwind",
        "-static-libstdc++",
        "-Wl,-z,max-page-size=16384",
        "-Wl,-z,text",
        "-Wl,--build-id=sha1",
        "-Wno-unused-command-line-argument",
    ],
    # Android Studio strips what it packs; this library is as often pushed by hand.
    opt_link_flags = ["-Wl,--strip-all"],
    # Kernels ask for -O3 themselves; all else is run once, at loading, and counts by its size.
    opt_compile_flags = ["-Os"],
    supports_start_end_lib = False,
    target_libc = "bionic",
    target_system_name = "{target}",
    tool_paths = {tools},
    toolchain_identifier = "android-{cpu}",
)
"""

def _ndk(repository_ctx):
    """The folder of an NDK that is new enough, or the end of the build with words to act on."""
    name = repository_ctx.os.environ.get("ANDROID_NDK_HOME", "")
    if not name:
        fail("ANDROID_NDK_HOME is not set: a build for Android needs the NDK, r%d or later. %s" % (_OLDEST_NDK, _HELP))
    properties = repository_ctx.path(name).get_child("source.properties")
    if not properties.exists:
        fail("ANDROID_NDK_HOME is \"%s\", which is no NDK: it holds no source.properties. %s" % (name, _HELP))
    for line in repository_ctx.read(properties).splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "Pkg.Revision":
            release = value.strip().split(".")[0]
            if not release.isdigit() or int(release) < _OLDEST_NDK:
                fail("ANDROID_NDK_HOME is \"%s\", NDK r%s: r%d or later is needed, whose libraries load on devices " %
                     (name, release, _OLDEST_NDK) + "with 16 KB pages. " + _HELP)
            return repository_ctx.path(name)
    fail("ANDROID_NDK_HOME is \"%s\", whose source.properties names no Pkg.Revision. %s" % (name, _HELP))

def _prebuilt(repository_ctx, ndk):
    """The compiler's folder for the machine that builds."""
    system = "darwin" if repository_ctx.os.name.lower().startswith("mac") else "linux"
    folder = ndk.get_child("toolchains").get_child("llvm").get_child("prebuilt").get_child(system + "-x86_64")
    if not folder.get_child("bin").get_child("clang").exists:
        fail("ANDROID_NDK_HOME is \"%s\", which holds no compiler for this system (%s). %s" % (ndk, folder, _HELP))
    for cpu in _CPUS.values():
        libraries = folder.get_child("sysroot").get_child("usr").get_child("lib").get_child(cpu + "-linux-android")
        if libraries.exists and not libraries.get_child(str(_API)).exists:
            fail("ANDROID_NDK_HOME is \"%s\", which has no libraries of API %d (Android 8.0) in %s. %s" %
                 (ndk, _API, libraries, _HELP))
    return folder

def _implementation(repository_ctx):
    root = _prebuilt(repository_ctx, _ndk(repository_ctx))
    bin = str(root.get_child("bin")) + "/"
    tools = {
        "ar": bin + "llvm-ar",
        "cpp": bin + "clang++",
        "dwp": bin + "llvm-dwp",
        # C++ is all there is to compile, and clang++ knows which libraries to link.
        "gcc": bin + "clang++",
        "gcov": "/bin/false",
        "ld": bin + "ld.lld",
        "llvm-cov": "/bin/false",
        "nm": bin + "llvm-nm",
        "objcopy": bin + "llvm-objcopy",
        "objdump": bin + "llvm-objdump",
        "strip": bin + "llvm-strip",
    }
    build = _BUILD
    for cpu, constraint in _CPUS.items():
        build += _TOOLCHAIN.format(
            api = _API,
            constraint = constraint,
            cpu = cpu,
            root = root,
            sysroot = root.get_child("sysroot"),
            target = "%s-linux-android%d" % (constraint, _API),
            tools = repr(tools),
        )
    repository_ctx.file("BUILD.bazel", build)

android_toolchains = repository_rule(
    implementation = _implementation,
    environ = ["ANDROID_NDK_HOME"],
    doc = "Toolchains of the NDK in ANDROID_NDK_HOME, r%d or later, for API %d and later." % (_OLDEST_NDK, _API),
)
