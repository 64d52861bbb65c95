"""Writes a .jar or .aar whose bytes depend on nothing but its files: sorted, and all of the same time.

archive.py ARCHIVE NAME=FILE...    a folder stands for all that is in it, under NAME
"""

import sys
import zipfile
from pathlib import Path


def write_archive(archive: str, *entries: str) -> None:
    """Writes the files of ``entries``, each NAME=FILE or NAME=FOLDER."""
    files = {}
    for entry in entries:
        name, _, source = entry.partition("=")
        path = Path(source)
        if path.is_dir():
            inside = (file for file in path.rglob("*") if file.is_file())
            files.update({name + file.relative_to(path).as_posix(): file for file in inside})
        else:
            files[name] = path
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for name in sorted(files):
            information = zipfile.ZipInfo(name, (2010, 1, 1, 0, 0, 0))
            information.compress_type = zipfile.ZIP_DEFLATED
            information.external_attr = 0o644 << 16
            out.writestr(information, files[name].read_bytes())


if __name__ == "__main__":
    write_archive(*sys.argv[1:])
