"""Compiler options of every C++ target of the project."""

# No contraction: a multiply and an add are fused only where a kernel says so, alike on every CPU.
COPTS = [
    "-fno-exceptions",
    "-fno-rtti",
    "-fvisibility=hidden",
    "-fvisibility-inlines-hidden",
    "-ffunction-sections",
    "-fdata-sections",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
]

# Kernels keep their accumulators in every register there is: Bazel's toolchain would take one for a frame pointer, and
# the kernels keep nothing on the stack that is worth guarding.
KERNEL_COPTS = COPTS + [
    "-O3",
    "-fomit-frame-pointer",
    "-fno-stack-protector",
]

# googletest's macros need run-time type information, and compile in half the time at -O1; everything else is as above.
TEST_COPTS = [
    "-O1",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
]
