"""Files are replaced whole or left; their hashes are those of the contents whatever the cache says, and quick."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import files
from bench.files import MissingFilesError, UnreadError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's cache folder; files count as settled at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "_SETTLED_NS", -(10**12))
    yield tmp_path / "cache" / files._CACHE_FOLDER / "digests"
    (tmp_path / "cache").chmod(0o755) if (tmp_path / "cache").exists() else None


def make(folder: Path, **contents: bytes) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return list(contents)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_what_is_remembered_is_not_read_again(tmp_path: Path, cache: Path) -> None:
    names = make(tmp_path / "data", a=b"1", b=b"2")
    wanted = [sha(b"1"), sha(b"2")]
    assert files.sha256_of_all(tmp_path / "data", names) == wanted
    assert len(list(cache.iterdir())) == 1
    with files.limited_reading(0):
        assert files.sha256_of_all(tmp_path / "data", names) == wanted


@pytest.mark.parametrize("keep_time", [False, True])
def test_a_changed_file_of_the_same_size_is_seen(tmp_path: Path, *, keep_time: bool) -> None:
    """Also where its time of modification was set back, as copying tools do."""
    folder = tmp_path / "data"
    names = make(folder, a=b"1")
    files.sha256_of_all(folder, names)
    before = (folder / "a").stat()
    time.sleep(0.02)
    (folder / "a").write_bytes(b"2")
    if keep_time:
        os.utime(folder / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert files.sha256_of_all(folder, names) == [sha(b"2")]


def test_a_file_that_has_just_been_changed_is_not_remembered(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A further change within the same tick of the clock would leave the same times."""
    monkeypatch.setattr(files, "_SETTLED_NS", 2_000_000_000)
    names = make(tmp_path / "data", a=b"1")
    assert files.sha256_of_all(tmp_path / "data", names) == [sha(b"1")]
    assert not cache.exists()


@pytest.mark.parametrize("damage", [b"", b"x", b"{}", b"\x00" * 200, b"[" * 5000])
def test_a_damaged_cache_is_no_cache(tmp_path: Path, cache: Path, damage: bytes) -> None:
    names = make(tmp_path / "data", a=b"1")
    files.sha256_of_all(tmp_path / "data", names)
    (file,) = cache.iterdir()
    file.write_bytes(damage)
    assert files.sha256_of_all(tmp_path / "data", names) == [sha(b"1")]
    whole = file.read_bytes()
    file.write_bytes(whole.replace(sha(b"1").encode(), sha(b"2").encode()))
    assert files.sha256_of_all(tmp_path / "data", names) == [sha(b"1")], "a changed hash is not believed"


@pytest.mark.parametrize("home", ["/dev/null/x", "relative", "/proc/nothing"])
def test_without_a_cache_the_hashes_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", home)
    monkeypatch.setenv("HOME", "/dev/null")
    names = make(tmp_path / "data", a=b"1")
    for _ in range(2):
        assert files.sha256_of_all(tmp_path / "data", names) == [sha(b"1")]
    assert not (tmp_path / "relative").exists()


def test_missing_files_are_named_before_any_is_read(tmp_path: Path) -> None:
    make(tmp_path / "data", a=b"1")
    with files.limited_reading(0), pytest.raises(MissingFilesError) as raised:
        files.sha256_of_all(tmp_path / "data", ["c", "a", "b"])
    assert raised.value.names == ["b", "c"]


def test_a_list_reads_no_more_than_it_may(tmp_path: Path) -> None:
    names = make(tmp_path / "data", a=b"1" * 600, b=b"2" * 600)
    with files.limited_reading(1000):
        files.sha256_of_all(tmp_path / "data", names[:1])
        with pytest.raises(UnreadError):
            files.sha256_of_all(tmp_path / "data", names[1:])
        with pytest.raises(UnreadError):
            files.refuse_if_limited("a download")
    with files.limited_reading(1000, patient=True):
        files.refuse_if_limited("a download")
    files.refuse_if_limited("a download")
    assert files.sha256_of_all(tmp_path / "data", names[1:]) == [sha(b"2" * 600)]
