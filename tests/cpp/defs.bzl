"""One line a C++ test: the same target runs on the host, under a sanitizer and on AArch64 under qemu."""

load("//tools:copts.bzl", "TEST_COPTS")

def delegate_cc_test(name, deps = [], srcs = None, size = "small", **kwargs):
    """A googletest binary.

    Args:
      name: of the target and, with ".cc", of its source.
      deps: targets under test; googletest and this folder's headers are added.
      srcs: sources, if not [name + ".cc"].
      size: Bazel's time class, for the emulated run too.
      **kwargs: passed to cc_test.
    """
    native.cc_test(
        name = name,
        size = size,
        srcs = srcs or [name + ".cc"],
        copts = TEST_COPTS,
        linkstatic = True,
        deps = deps + [
            ":testing",
            "@googletest//:gtest_main",
        ],
        **kwargs
    )
