"""The FlexBuffer map: what is built can be read by the FlexBuffers library, what is read is checked."""

import contextlib

import properties  # noqa: F401
import pytest
from flatbuffers import flexbuffers
from hypothesis import given
from hypothesis import strategies as st

from keras_prune.tflite.custom_options import CustomOptions, FormatError, build

LETTERS = "abcXYZ_019-. "
VALUES = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.text(LETTERS + "é€", max_size=9), st.binary(max_size=300), st.booleans()
)
KEYS = st.text(LETTERS, min_size=1, max_size=12)


def options_of(values: dict) -> CustomOptions:
    return CustomOptions(build(values), "BlockSparseConv2D 'conv'")


def test_bytes_are_a_flexbuffer_map_with_sorted_keys():
    keys = "62006100020306"  # the texts, then a vector of two offsets back to "a" and "b"
    map_ = "02010201020404"  # back to the keys, their width, size, two values, two types (int, 8 bits)
    root = "042401"  # back to the first value, type (map, 8 bits), width
    assert build({"b": 2, "a": 1}).hex() == keys + map_ + root


@given(st.dictionaries(KEYS, VALUES, max_size=8))
def test_library_reads_what_is_built(values):
    assert flexbuffers.Loads(build(values)) == values


@given(st.dictionaries(KEYS, VALUES, max_size=8))
def test_reads_what_the_library_builds(values):
    options = options_of(values)
    assert sorted(options.keys()) == sorted(values)
    for key, value in values.items():
        if isinstance(value, bool):
            assert options.flag(key) is value
        elif isinstance(value, int):
            assert options.integer(key, -(2**63), 2**63 - 1) == value
        elif isinstance(value, str):
            assert options.string(key) == value
        else:
            assert options.blob(key) == value


def test_reads_indirect_and_unsigned_integers():
    builder = flexbuffers.Builder()
    with builder.Map():
        builder.IndirectInt("i", -70000)
        builder.IndirectUInt("u", 70000)
        builder.UInt("v", 2**63)
    options = CustomOptions(bytes(builder.Finish()), "op")
    assert options.integer("i", -(10**9), 0) == -70000
    assert options.integer("u", 0, 10**9) == 70000
    assert options.integer("v", 0, 2**64) == 2**63


@pytest.mark.parametrize("value", ["text", b"blob", 7, True, 1.5, [1, 2], {"a": 1}, None])
def test_wrong_types_are_named(value):
    options = CustomOptions(bytes(flexbuffers.Dumps({"key": value})), "BlockSparseConv2D 'conv'")
    readers = {
        int: lambda: options.integer("key", 0, 9),
        str: lambda: options.string("key"),
        bytes: lambda: options.blob("key"),
        bool: lambda: options.flag("key"),
    }
    for kind, read in readers.items():
        if type(value) is kind:
            assert read() == value
        else:
            with pytest.raises(FormatError, match=r"BlockSparseConv2D 'conv'.*'key'.*expected a"):
                read()


def test_missing_range_and_choice_are_named():
    options = options_of({"version": 2, "padding": "full"})
    with pytest.raises(FormatError, match="'rows': is missing; expected an integer"):
        options.integer("rows", 1, 9)
    with pytest.raises(FormatError, match="'version': is 2; expected 1 to 1"):
        options.integer("version", 1, 1)
    with pytest.raises(FormatError, match="'padding': is 'full'; expected one of same, valid"):
        options.string("padding", ("same", "valid"))


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"\0\0", flexbuffers.Dumps([1, 2]), flexbuffers.Dumps(7), flexbuffers.Dumps("text"), b"\xff" * 64],
    ids=["empty", "one byte", "two bytes", "vector", "integer", "string", "noise"],
)
def test_what_is_no_map_is_refused(data):
    with pytest.raises(FormatError, match="op: custom options: "):
        CustomOptions(bytes(data), "op")


def read_all(data: bytes) -> None:
    options = CustomOptions(data, "op")
    names = options.keys()
    for key in names:
        for read in (lambda k: options.integer(k, 0, 9), options.string, options.blob, options.flag):
            with contextlib.suppress(FormatError):
                read(key)


def test_truncated_and_mutated_maps_fail_with_an_error_that_says_so_or_not_at_all():
    data = build({"version": 1, "structure": "unaligned_block", "positions": bytes(range(40)), "keep_num_dims": True})
    broken = [data[:size] for size in range(len(data))]
    broken += [data[size:] for size in range(1, len(data))]
    for at in range(len(data)):
        for value in (0, 1, 0x7F, 0x80, 0xFF, data[at] ^ 1, data[at] ^ 0x10):
            broken.append(data[:at] + bytes([value]) + data[at + 1 :])
    for mutated in broken:
        with contextlib.suppress(FormatError):
            read_all(mutated)
