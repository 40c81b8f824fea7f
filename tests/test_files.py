import io
import os
import stat
from pathlib import Path

import pytest

from gfnem.errors import UserError
from gfnem.files import decode_lines, read_lines, read_text, write_atomically


def _write(path, data):
    path.write_bytes(data)
    return path


def test_write_makes_folders_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    write_atomically(path, "één\r\nzwei\n")
    assert path.read_bytes() == "één\r\nzwei\n".encode()
    write_atomically(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert [p.name for p in path.parent.iterdir()] == ["c.txt"]


def test_write_obeys_the_umask_and_follows_links(tmp_path):
    path, link = tmp_path / "file", tmp_path / "link"
    old = os.umask(0o027)
    try:
        write_atomically(path, "one")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    link.symlink_to(path)
    write_atomically(link, "two")
    assert link.is_symlink() and path.read_text() == "two"


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"file: cannot write \(No space left on device\)"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_write_onto_a_folder_or_under_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="cannot write"):
            write_atomically(path, "x")


def test_reading_drops_bom_and_carriage_returns_only_at_line_ends(tmp_path):
    # U+2028 and the form feed end a line for `str.splitlines`, but not in a file.
    path = _write(tmp_path / "t", "\ufeffone\r\ntwo \u2028\x0c 2\n\nfour".encode())
    assert read_text(path) == "one\ntwo \u2028\x0c 2\n\nfour"
    assert list(read_lines(path)) == ["one", "two \u2028\x0c 2", "", "four"]


@pytest.mark.parametrize("read", [read_text, lambda path: list(read_lines(path))])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"good\nbad \xe9t\xe9\n", "line 2: not UTF-8 text .byte 0xe9"),
        (b"a\nb\nc\0d\n", "line 3: a NUL byte"),
        ("wide\n".encode("utf-16"), "line 1"),
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
    ],
)
def test_bad_content(tmp_path, read, data, message):
    path = _write(tmp_path / "t", data)
    with pytest.raises(UserError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("read", [read_text, lambda path: list(read_lines(path))])
def test_missing_file_folder_and_unreadable(tmp_path, read):
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "none")
    with pytest.raises(UserError, match="a folder"):
        read(tmp_path)


def test_a_source_that_fails_while_it_is_read(tmp_path, monkeypatch):
    def refused(*args, **kwargs):
        raise PermissionError(13, "Permission denied")
        yield

    with pytest.raises(UserError, match=r"pipe: cannot read \(Permission denied\)"):
        list(decode_lines(refused(), "pipe"))
    monkeypatch.setattr(Path, "read_bytes", lambda path: next(refused()))
    with pytest.raises(UserError, match=r"secret: cannot read \(Permission denied\)"):
        read_text(tmp_path / "secret")


def test_streams_of_bytes_and_text():
    assert list(decode_lines(io.BytesIO(b"\xef\xbb\xbfa\r\nb"), "pipe")) == ["a", "b"]
    assert list(decode_lines(io.StringIO("\ufeffa\n\nb\n"), "pipe")) == ["a", "", "b"]
    lines = decode_lines(io.BytesIO(b"a\n\xff\n"), "pipe")
    assert next(lines) == "a"
    with pytest.raises(UserError, match="pipe, line 2"):
        next(lines)
    text = io.TextIOWrapper(io.BytesIO(b"\xff\n"), encoding="utf-8")
    with pytest.raises(UserError, match="pipe, line 1"):
        list(decode_lines(text, "pipe"))
