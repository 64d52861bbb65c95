"""Makes libraries built for Android run in a process of glibc's: Android's system libraries by name, no versions."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

SYSTEM_LIBRARIES = ["libc.so", "libm.so", "libdl.so", "liblog.so"]
_NAMES = Path(__file__).with_name("android_names.c")
_RENAMED = [b"vfprintf", b"fprintf", b"fputc", b"fwrite", b"fflush", b"sysconf"]

_DYNAMIC_SEGMENT = 2
_DEBUG_TAG = 21  # a dynamic entry that the loader of glibc skips in a library
_VERSION_TAGS = [0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF]


def make_system_libraries(folder: Path, compiler: str) -> None:
    """Compiles android_names.c once for each of Android's system libraries."""
    folder.mkdir(exist_ok=True)
    for name in SYSTEM_LIBRARIES:
        command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", f"-Wl,-soname,{name}", str(_NAMES)]
        subprocess.run([*command, "-o", str(folder / name), "-Wl,--no-as-needed", "-lm"], check=True)


def without_versions(library: bytes) -> bytes:
    """The library (64-bit ELF) asking for symbols of any version, and for some under the names of android_names.c."""
    patched = bytearray(library)
    (table,) = struct.unpack_from("<Q", patched, 32)
    (count,) = struct.unpack_from("<H", patched, 56)
    for header in range(table, table + 56 * count, 56):
        kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", patched, header)
        if kind == _DYNAMIC_SEGMENT:
            for entry in range(offset, offset + size, 16):
                if struct.unpack_from("<q", patched, entry)[0] in _VERSION_TAGS:
                    struct.pack_into("<q", patched, entry, _DEBUG_TAG)
    for name in _RENAMED:
        patched = patched.replace(b"\0" + name + b"\0", b"\0" + name[:-1] + b"_\0")
    return bytes(patched)
