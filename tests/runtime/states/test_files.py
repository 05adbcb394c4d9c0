"""Saved states: what is read is what was written; what is not a saved state loses nothing."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.errors import ClarionError, ContextError, FileError, FormatError, ParameterError
from clarion.runtime.states.files import SavedState
from clarion.runtime.states.states import States
from tests.runtime.states.toys import PAGE_BYTES, Toy, ToyRecurrent

TOKENS = [7, *range(100, 250)]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "x.state"
    Toy(n_pages=8, recurrent=True).open(TOKENS).save(path)
    return path


@pytest.mark.parametrize(
    "kinds",
    [{}, {"recurrent": True}, {"window": 70, "slots": True}, {"pages": False, "slots": True}],
    ids=str,
)
@pytest.mark.parametrize("n", [0, 1, 64, 151])
def test_another_process_goes_on(tmp_path: Path, kinds: dict[str, Any], n: int) -> None:
    toy = Toy(n_pages=16, batch=200, **kinds)
    state = toy.open([*TOKENS[:n], 1, 2, 3, 4, 5])
    state.rewind(5)
    state.save(str(tmp_path / "x.state"))
    other = Toy(n_pages=16, batch=200, **kinds)
    other.open([1, 2, 3])
    loaded = other.states.load(tmp_path / "x.state")
    assert loaded is not None
    other.check(loaded, TOKENS[:n])
    assert other.compute(loaded, [5] * 100)
    other.check(loaded, TOKENS[:n] + [5] * 100)


def test_a_file_is_replaced_as_a_whole(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()
    toy = Toy(n_pages=8, recurrent=True)
    state = toy.open([1, 2])

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(FileError, match=r"x\.state: cannot be written: No space left"):
            state.save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]
    state.save(saved)
    assert saved.read_bytes() != before
    assert list(saved.parent.iterdir()) == [saved]
    with pytest.raises(FileError, match="cannot be written"):
        state.save(saved.parent / "nowhere" / "x.state")


def load(path: Path, **options: int) -> None:
    """Loads beside a retained prefix, which must survive an error."""
    toy = Toy(n_pages=8, recurrent=True, **options)  # type: ignore[arg-type]
    kept = toy.open(list(range(40)))
    toy.states.retain(kept)
    used = toy.states.used_bytes
    try:
        toy.states.load(path)
    finally:
        assert toy.states.used_bytes == used
        assert toy.states.free_slots == 4
        assert toy.states.prefixes.longest(list(range(40))) == 40


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"x\.state: cannot be read: No such file"):
        load(tmp_path / "x.state")
    with pytest.raises(FileError, match="cannot be read: Is a directory"):
        load(tmp_path)
    toy = Toy(n_pages=8)
    state = toy.open(TOKENS)
    for name in (".", "/"):
        with pytest.raises(FileError, match="cannot be written"):
            state.save(name)
    for name in ("", "a\0b"):
        with pytest.raises(ParameterError, match="expected the name of a file"):
            state.save(name)
        with pytest.raises(ParameterError, match="expected the name of a file"):
            toy.states.load(name)


def test_a_file_cut_anywhere(saved: Path, tmp_path: Path) -> None:
    data = saved.read_bytes()
    path = tmp_path / "cut.state"
    for n in [*range(400), *range(400, len(data), 97), len(data) - 1]:
        path.write_bytes(data[:n])
        with pytest.raises(FormatError, match=r"cut\.state: "):
            load(path)
    path.write_bytes(data + b"x")
    with pytest.raises(FormatError, match=rf"found {len(data) + 1} bytes, expected {len(data)}"):
        load(path)


@given(data=st.data())
def test_a_file_with_a_bit_turned(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("bits") / "x.state"
    Toy(n_pages=8, recurrent=True).open(TOKENS).save(path)
    content = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    with pytest.raises(ClarionError, match=r"x\.state: "):
        load(path)


def test_a_foreign_file(tmp_path: Path) -> None:
    path = tmp_path / "x.state"
    path.write_bytes(b"GGUF" + bytes(1000))
    with pytest.raises(FormatError, match="no saved state: found b'GGUF"):
        load(path)
    path.write_bytes(struct.pack("<8sII", b"CLARSTAT", 2, 0) + bytes(100))
    with pytest.raises(FormatError, match="version: found 2, expected 1"):
        load(path)
    path.write_bytes(struct.pack("<8sII", b"CLARSTAT", 1, 1 << 31) + bytes(100))
    with pytest.raises(FormatError, match="header: found 2147483648 bytes"):
        load(path)
    for header in (b"{", b"[]", b'{"tokens": true}', b"\xff\xfe", b"[" * 100_000, "{}".encode("utf-16")):
        path.write_bytes(struct.pack("<8sII", b"CLARSTAT", 1, len(header)) + header)
        with pytest.raises(FormatError, match="header: "):
            load(path)


def rewritten(path: Path, tokens: list[int] | None = None, **changes: object) -> None:
    """Changes the header or the tokens, and mends the sum."""
    data = path.read_bytes()
    (n,) = struct.unpack_from("<I", data, 12)
    header = json.loads(data[16 : 16 + n]) | changes
    text = json.dumps(header).encode()
    rest = data[16 + n : -4]
    if tokens is not None:
        rest = struct.pack(f"<{len(tokens)}i", *tokens) + rest[4 * len(tokens) :]
    data = struct.pack("<8sII", b"CLARSTAT", 1, len(text)) + text + rest
    path.write_bytes(data + struct.pack("<I", zlib.crc32(data)))


@pytest.mark.parametrize("key", ["states", "byteorder", "kinds"])
def test_a_state_of_another_program(saved: Path, key: str) -> None:
    rewritten(saved, **{key: [] if key == "kinds" else "other"})
    with pytest.raises(ParameterError, match=rf"x\.state: a state of another program: {key}: found"):
        load(saved)


def test_pages_alone_do_not_load_what_has_more(saved: Path) -> None:
    toy = Toy(n_pages=8)
    with pytest.raises(ParameterError, match="kinds: found"):
        toy.states.load(saved)


def test_a_token_that_is_none(saved: Path) -> None:
    rewritten(saved, tokens=[-5])
    with pytest.raises(FormatError, match="token: found -5"):
        load(saved)


def test_more_tokens_than_the_context(saved: Path) -> None:
    with pytest.raises(ContextError, match="found 151 tokens, the context is 100"):
        load(saved, context=100)


def test_no_slot_and_no_room(saved: Path) -> None:
    toy = Toy(n_pages=4, n_slots=2, recurrent=True)
    first = toy.open(list(range(100)))
    assert toy.states.load(saved) is None
    first.truncate(0)
    second = toy.states.load(saved)
    assert second is not None
    toy.check(second, TOKENS)
    first.truncate(0)
    assert toy.states.load(saved) is None
    second.release()
    assert toy.states.load(saved) is not None


def test_loading_evicts_for_what_fits(saved: Path) -> None:
    toy = Toy(n_pages=4, recurrent=True)
    toy.states.retain(toy.open(list(range(100))))
    assert toy.states.free_bytes < 2 * PAGE_BYTES
    loaded = toy.states.load(saved)
    assert loaded is not None
    toy.check(loaded, TOKENS)


def test_the_header_says_what_is_in_the_file(saved: Path) -> None:
    with SavedState(saved) as file:
        assert file.n_tokens == len(TOKENS)
    states = States([ToyRecurrent(1, 9)], n_slots=1, context=200, budget_bytes=9)
    with pytest.raises(ParameterError, match="states: found 'toys', expected ''"):
        states.load(saved)


def test_a_recurrent_state_of_another_position_is_refused(tmp_path: Path) -> None:
    """As the rest, before anything of it is used, and the slot is free again."""
    path = tmp_path / "x.state"
    toy = Toy(n_pages=8, pages=False, slots=True)
    toy.open(TOKENS).save(path)
    data = bytearray(path.read_bytes())
    layer_bytes = toy.states.kinds[0].saved_bytes(len(TOKENS))
    at = len(data) - 4 - layer_bytes
    assert int.from_bytes(data[at : at + 8], "little") == len(TOKENS)
    data[at : at + 8] = (len(TOKENS) - 17).to_bytes(8, "little")
    data[-4:] = zlib.crc32(data[:-4]).to_bytes(4, "little")
    path.write_bytes(data)
    message = r"x\.state: position of a state: found 134, expected 135 to 151"
    with pytest.raises(FormatError, match=message):
        toy.states.load(path)
    assert toy.states.free_slots == 3
