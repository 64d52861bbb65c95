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

# googletest's macros need run-time type information; everything else is as above.
TEST_COPTS = [
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
]
