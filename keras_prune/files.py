"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a file to write to in place of another, which it replaces at the end of the block.

    Until then the other stays as it is, and where the block is left by an exception, Ctrl-C included, it stays for
    good and nothing is left beside it. Several processes may do so at once. A link stays a link, to the new content.

    Args:
        path: the file to replace, or to make; its folder must be there.

    Yields:
        A file in the same folder, empty, with the same ending, since that tells some writers the format.

    Raises:
        OSError: the folder is missing or cannot be written to.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "text.txt"
        >>> with replacing(target) as aside:
        ...     _ = aside.write_text("done")
        ...     target.exists()
        False
        >>> target.read_text()
        'done'
    """
    target = Path(path).resolve()
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".part-", suffix=f"-{target.name}")
    os.close(descriptor)
    try:
        yield Path(name)
        with open(name, "rb+") as file:
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)  # a temporary file is its owner's alone
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def write(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file whole or not at all; text as UTF-8.

    Raises:
        OSError: the folder is missing or cannot be written to.
    """
    with replacing(path) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)
