"""What runtimes compile comes back whole or not at all, and what is kept of it has a bound."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raudo.kept import MOST_BYTES, SHIPPED, Kept, digest_word, ship

CONTENT = b"what was\0compiled"
WORDS = ("a b/c", "1.0-x", "2")
ENGINE = Path("engine.xml")


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    return tmp_path / "raudo"


def test_it_comes_back_by_the_same_words(folder: Path) -> None:
    assert Kept(ENGINE, WORDS).read() is None
    Kept(ENGINE, WORDS).write(CONTENT)
    assert Kept(ENGINE, WORDS).read() == CONTENT
    assert Kept(ENGINE, (*WORDS, "3")).read() is None
    assert [file.name for file in folder.iterdir()] == ["a_b_c-1.0-x-2.blob"]


def test_a_damaged_file_is_none(folder: Path) -> None:
    kept = Kept(ENGINE, WORDS)
    kept.write(CONTENT)
    whole = kept.path.read_bytes()
    for i in range(len(whole)):
        kept.path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        assert kept.read() is None
        kept.path.write_bytes(whole[:i])
        assert kept.read() is None


def test_what_was_not_used_for_longest_makes_room(folder: Path) -> None:
    folder.mkdir()
    names = ("oldest.blob", "older.blob", "recent.blob", "other.timing")
    for age, name in enumerate(names):
        with (folder / name).open("wb") as stream:
            stream.truncate(MOST_BYTES * 2 // 5)  # a hole, which takes no room
        os.utime(folder / name, (age + 1, age + 1))
    Kept(ENGINE, WORDS).write(CONTENT)
    left = {file.name for file in folder.iterdir()}
    assert left == {*names[1:], Kept(ENGINE, WORDS).path.name}


def test_it_is_no_error_where_it_cannot_be_kept(folder: Path) -> None:
    folder.write_bytes(b"a file where the folder should be")
    Kept(ENGINE, WORDS).write(CONTENT)
    assert Kept(ENGINE, WORDS).read() is None


def test_what_is_kept_of_an_engine_is_shipped_with_it(folder: Path, tmp_path: Path) -> None:
    digests = {"m.xml": "a" * 64, "m.bin": "b" * 64}
    words = (digest_word(digests), "2")
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    ship(digests, bundle)
    assert not list(bundle.iterdir())
    Kept(ENGINE, words).write(CONTENT)
    Kept(ENGINE, ("c" * 32, "2")).write(b"of another engine")
    ship(digests, bundle)
    (shipped,) = (bundle / SHIPPED).iterdir()
    Kept(ENGINE, words).path.unlink()
    elsewhere = Kept(bundle / "m.xml", words)
    assert elsewhere.read() == CONTENT
    elsewhere.write(b"compiled here")
    assert elsewhere.read() == b"compiled here"
    elsewhere.path.unlink()
    shipped.write_bytes(b"damaged")
    assert elsewhere.read() is None
