"""Files are written whole or not at all."""

import os

import pytest

from keras_prune import files


@pytest.mark.parametrize("content", [b"\x00\xff", "words, and \u03bb\n", b""])
def test_write(tmp_path, content):
    path = tmp_path / "file.bin"
    for _ in range(2):
        files.write(path, content)
        assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize("where", ["block", "replace", "fsync"])
def test_what_fails_leaves_things_as_they_were(monkeypatch, tmp_path, error, old, where):
    path = tmp_path / "file.npz"
    if old is not None:
        path.write_bytes(old)

    def fail(*_):
        raise error("disk full")

    def half_written():
        with files.replacing(path) as aside:
            assert aside.parent == path.parent and aside.suffix == ".npz"
            aside.write_bytes(b"half")
            if where == "block":
                fail()

    if where != "block":
        monkeypatch.setattr(files.os, where, fail)
    with pytest.raises(error, match="disk full"):
        half_written()
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == ([("file.npz", old)] if old else [])


def test_links_and_permissions(tmp_path):
    (tmp_path / "there").mkdir()
    path, target = tmp_path / "link.json", tmp_path / "there" / "target.json"
    path.symlink_to(target)
    mask = os.umask(0o027)
    try:
        files.write(path, "text")
    finally:
        os.umask(mask)
    assert path.is_symlink() and target.read_text() == "text" and target.stat().st_mode & 0o777 == 0o640


def test_two_at_once(tmp_path):
    path = tmp_path / "best.json"
    with files.replacing(path) as one, files.replacing(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one" and list(tmp_path.iterdir()) == [path]


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        files.write(tmp_path / "none" / "file", b"")
