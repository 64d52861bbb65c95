"""Linker options of the project's shared libraries."""

def shared_library_linkopts(version_script):
    """Links nothing but the C library, and exports nothing but what the version script names.

    The C++ library is linked in. The toolchain's own -lstdc++ comes later on the command line and is dropped as
    unneeded; Android's links its C++ library statically by itself.

    Args:
      version_script: label of the script, which is to be in additional_linker_inputs too.
    """
    return [
        "-Wl,--version-script,$(location %s)" % version_script,
        "-Wl,--gc-sections",
        "-Wl,--as-needed",
        "-Wl,-z,defs",
        "-Wl,-z,max-page-size=16384",
        "-pthread",
    ] + select({
        # Kernels that come out alike are one: nothing tells functions apart by their addresses. Relocations, most of
        # them of the kernels' tables, in the form that Android 6 and later read: a tenth of the bytes.
        "//tflite_delegate:android": [
            "-Wl,--icf=all",
            "-Wl,--pack-dyn-relocs=android",
        ],
        "//conditions:default": [
            "-l:libstdc++.a",
            "-static-libgcc",
        ],
    })
