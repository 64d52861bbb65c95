"""Writes flexbuffer_fixtures.inc: buffers from the reference Python writer, against which the C++ reader is checked.

Run from the root of the repository: python tests/cpp/flexbuffer_fixtures.py > tests/cpp/flexbuffer_fixtures.inc
"""

from flatbuffers import flexbuffers  # type: ignore[import-untyped]


def unaligned_convolution(width: flexbuffers.BitWidth) -> bytes:
    """A 3x3 convolution, 5 x 18, with 3 unaligned blocks of 2, keys given in an order that is not the sorted one."""
    builder = flexbuffers.Builder(force_min_bit_width=width)
    with builder.Map():
        builder.Int("version", 1)
        builder.String("structure", "unaligned_block")
        builder.Int("rows", 5)
        builder.Int("columns", 18)
        builder.Int("kernel_height", 3)
        builder.Int("kernel_width", 3)
        builder.Int("stride_height", 2)
        builder.Int("stride_width", 1)
        builder.Int("dilation_height", 1)
        builder.Int("dilation_width", 2)
        builder.String("padding", "same")
        builder.String("activation", "relu6")
        builder.Int("block", 2)
        # Positions 3 (column 0, row 3), 6 (column 1, row 1), 87 (column 17, row 2): the cursor is at 5, then at 8.
        builder.Blob("positions", bytes([3, 1, 79]))
    return bytes(builder.Finish())


def every_type() -> bytes:
    """Each type that a map can hold, integers of all widths, a nested map and vectors."""
    builder = flexbuffers.Builder()
    with builder.Map():
        builder.String("utf8", "gr\u00fc\u00df")
        builder.String("empty string", "")
        builder.Blob("blob", b"\x00\xff\x80")
        builder.Blob("empty blob", b"")
        builder.Blob("long blob", bytes(i % 251 for i in range(300)))
        builder.Bool("yes", True)
        builder.Bool("no", False)
        for value in (-1, -128, 127, -32768, 2**31 - 1, -(2**63), 2**63 - 1):
            builder.Int(f"int {value}", value)
            builder.IndirectInt(f"indirect int {value}", value)
        for value in (255, 65535, 2**32 - 1, 2**63, 2**64 - 1):
            builder.UInt(f"uint {value}", value)
            builder.IndirectUInt(f"indirect uint {value}", value)
        for byte_width in (1, 2, 4, 8):
            builder.IndirectInt(f"wide {byte_width}", -3, byte_width)
        builder.Float("float", 1.5)
        builder.Float("double", 0.1)
        builder.IndirectFloat("indirect float", 2.5)
        builder.Null("null")
        builder.VectorFromElements("vector", [1, "two", 3.0])
        builder.TypedVectorFromElements("typed vector", [1, 2, 3])
        builder.TypedVectorFromElements("bools", [True, False])
        builder.FixedTypedVectorFromElements("fixed vector", [1, 2])
        with builder.Map("map"):
            builder.Int("blob", 7)
    return bytes(builder.Finish())


def emit(name: str, data: bytes) -> None:
    """Prints one array."""
    print(f"const uint8_t {name}[] = {{")
    for start in range(0, len(data), 24):
        print("    " + " ".join(f"{byte}," for byte in data[start : start + 24]))
    print("};")


def main() -> None:
    """Prints all arrays."""
    print("// Made by flexbuffer_fixtures.py.")
    for width in flexbuffers.BitWidth:
        emit(f"kUnalignedConvolution{8 << width}", unaligned_convolution(width))
    emit("kEveryType", every_type())
    emit("kEmptyMap", bytes(flexbuffers.Dumps({})))
    emit("kVector", bytes(flexbuffers.Dumps([1, 2])))
    emit("kInteger", bytes(flexbuffers.Dumps(5)))


if __name__ == "__main__":
    main()
