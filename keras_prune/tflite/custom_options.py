"""The FlexBuffer map in `custom_options`: building it, and reading it with every offset, type and range checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flatbuffers import flexbuffers

Value = int | str | bytes | bool

_MISSING: Any = object()

# FlexBuffer value types (the upper six bits of a packed type); the lower two give the width of what is pointed to.
_INT, _UINT, _STRING, _INDIRECT_INT, _INDIRECT_UINT, _MAP, _BLOB, _BOOL = 1, 2, 5, 6, 7, 9, 25, 26


class FormatError(ValueError):
    """A block-sparse operator's options or tensors are not what `docs/format.md` allows."""


def build(values: Mapping[str, Value]) -> bytes:
    """Build a FlexBuffer map.

    Args:
        values: the map; `bytes` become blobs.

    Returns:
        The FlexBuffer's bytes; equal maps give equal bytes.

    Example:
        >>> CustomOptions(build({"version": 1}), "op").integer("version", 1, 1)
        1
    """
    return bytes(flexbuffers.Dumps(dict(values)))


class CustomOptions:
    """Checked reader of one operator's options.

    Args:
        data: the bytes of `custom_options`, untrusted.
        operator: how messages name the operator.

    Raises:
        FormatError: the bytes are no FlexBuffer map; the message names the operator.
    """

    def __init__(self, data: bytes, operator: str) -> None:
        self.operator = operator
        self.size = len(data)
        try:
            self._values = _Reader(bytes(data)).root_map()
        except _DamagedError as error:
            raise FormatError(f"{operator}: custom options: {error}") from None

    @classmethod
    def of(cls, values: Mapping[str, Value], operator: str) -> CustomOptions:
        """Make a reader of options that need not be packed first."""
        options = cls.__new__(cls)
        options.operator, options.size = operator, 0
        options._values = dict(values)
        return options

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def keys(self) -> list[str]:
        """Return all keys, known or not."""
        return list(self._values)

    def fail(self, key: str, problem: str) -> FormatError:
        """Make an error that names operator, key and problem."""
        return FormatError(f"{self.operator}: custom option {key!r}: {problem}")

    def integer(self, key: str, minimum: int, maximum: int, default: int = _MISSING) -> int:
        """Return the integer at `key`, or raise `FormatError`."""
        value = self._get(key, "an integer", default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(key, f"is {_kind(value)}; expected an integer")
        if not minimum <= value <= maximum and value is not default:
            raise self.fail(key, f"is {value}; expected {minimum} to {maximum}")
        return value

    def string(self, key: str, choices: Sequence[str] | None = None, default: str = _MISSING) -> str:
        """Return the string at `key`, or raise `FormatError`."""
        value = self._get(key, "a string", default)
        if not isinstance(value, str):
            raise self.fail(key, f"is {_kind(value)}; expected a string")
        if choices is not None and value not in choices:
            raise self.fail(key, f"is {value!r}; expected one of {', '.join(choices)}")
        return value

    def blob(self, key: str, default: bytes = _MISSING) -> bytes:
        """Return the blob at `key`, or raise `FormatError`."""
        value = self._get(key, "a blob", default)
        if not isinstance(value, bytes):
            raise self.fail(key, f"is {_kind(value)}; expected a blob")
        return value

    def flag(self, key: str, default: bool = _MISSING) -> bool:
        """Return the bool at `key`, or raise `FormatError`."""
        value = self._get(key, "a bool", default)
        if not isinstance(value, bool):
            raise self.fail(key, f"is {_kind(value)}; expected a bool")
        return value

    def _get(self, key: str, expected: str, default: Any) -> Any:
        value = self._values.get(key, default)
        if value is _MISSING:
            raise self.fail(key, f"is missing; expected {expected}")
        return value


def _kind(value: Any) -> str:
    names = {bool: "a bool", int: "an integer", str: "a string", bytes: "a blob"}
    return names.get(type(value), "of another type")


class _DamagedError(Exception):
    pass


class _Reader:
    """Reads the scalars, strings and blobs of a root map.

    `flatbuffers.flexbuffers` can read as well, but follows offsets without checking them: one that points before the
    buffer wraps around to its end.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data

    def root_map(self) -> dict[str, Any]:
        if len(self._data) < 3:
            raise _DamagedError(f"{len(self._data)} bytes are no FlexBuffer; expected a map")
        width, packed = self._data[-1], self._data[-2]
        if width not in (1, 2, 4, 8):
            raise _DamagedError(f"the root's width is {width} bytes; the FlexBuffer is damaged or truncated")
        if packed >> 2 != _MAP:
            raise _DamagedError("the FlexBuffer's root is not a map")
        values = self._follow(len(self._data) - 2 - width, width)
        width = 1 << (packed & 3)
        size = self._unsigned(values - width, width)
        key_width = self._unsigned(values - 2 * width, width)
        keys = self._follow(values - 3 * width, width)
        if key_width not in (1, 2, 4, 8):
            raise _DamagedError("the map's key vector is damaged")
        if size > len(self._data) or values + size * (width + 1) > len(self._data):
            raise _DamagedError("the map reaches past the end of the FlexBuffer")
        result: dict[str, Any] = {}
        for i in range(size):
            key = self._key(self._follow(keys + i * key_width, key_width))
            if key in result:
                raise _DamagedError(f"the key {key!r} occurs twice")
            result[key] = self._value(values + i * width, width, self._data[values + size * width + i])
        return result

    def _value(self, at: int, width: int, packed: int) -> Any:
        kind, child = packed >> 2, 1 << (packed & 3)
        if kind == _INT:
            return self._signed(at, width)
        if kind == _UINT:
            return self._unsigned(at, width)
        if kind == _BOOL:
            return self._unsigned(at, width) != 0
        if kind in (_INDIRECT_INT, _INDIRECT_UINT):
            read = self._signed if kind == _INDIRECT_INT else self._unsigned
            return read(self._follow(at, width), child)
        if kind in (_STRING, _BLOB):
            start = self._follow(at, width)
            payload = self._slice(start, self._unsigned(start - child, child))
            return payload if kind == _BLOB else payload.decode("utf-8", "replace")
        return None  # a type that no key has today; only an error if a known key has it

    def _key(self, at: int) -> str:
        end = self._data.find(0, at)
        if end < 0:
            raise _DamagedError("a key has no end")
        return self._data[at:end].decode("utf-8", "replace")

    def _follow(self, at: int, width: int) -> int:
        target = at - self._unsigned(at, width)
        if target < 0:
            raise _DamagedError("an offset points before the FlexBuffer")
        return target

    def _slice(self, at: int, size: int) -> bytes:
        if at < 0 or at + size > len(self._data):
            raise _DamagedError("a value reaches out of the FlexBuffer")
        return self._data[at : at + size]

    def _unsigned(self, at: int, width: int) -> int:
        return int.from_bytes(self._slice(at, width), "little")

    def _signed(self, at: int, width: int) -> int:
        return int.from_bytes(self._slice(at, width), "little", signed=True)
