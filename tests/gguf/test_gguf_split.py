"""Split models: opened from any part, refused when the parts do not belong together."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf_bytes import ARCHITECTURE, I32, STRING, U16, U32, gguf, i32, pair, row, text, u16, u32

from clarion.errors import ClarionError, FileError, FormatError
from clarion.gguf import File

N = 3


def part(
    number: int, count: int = N, total: int = 2 * N, names: str = "ab", extra: tuple[bytes, ...] = ()
) -> bytes:
    pairs = [
        pair("split.no", U16, u16(number)),
        pair("split.count", U16, u16(count)),
        pair("split.tensors.count", I32, i32(total)),
        *extra,
    ]
    rows = [row(f"{name}.{number}", [8], 0, 32 * i) for i, name in enumerate(names)]
    return gguf(pairs, rows, bytes([number]) * 32 * len(names))


def path_of(folder: Path, number: int, count: int = N) -> Path:
    return folder / f"model-{number + 1:05d}-of-{count:05d}.gguf"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(N):
        extra = (ARCHITECTURE, pair("only.first", U32, u32(7))) if number == 0 else ()
        path_of(tmp_path, number).write_bytes(part(number, extra=extra))
    return tmp_path


@pytest.mark.parametrize("opened", range(N))
def test_opens_from_any_part(folder: Path, opened: int) -> None:
    with File.open(path_of(folder, opened)) as file:
        assert file.path == path_of(folder, opened)
        assert file.parts == tuple(path_of(folder, number) for number in range(N))
        assert file.metadata.int("only.first") == 7
        assert list(file.tensors) == [f"{name}.{number}" for number in range(N) for name in "ab"]
        for number in range(N):
            tensor = file.tensors[f"b.{number}"]
            assert tensor.part == number
            assert bytes(tensor.data) == bytes([number]) * 32
            whole = np.fromfile(file.parts[tensor.part], np.uint8)
            assert np.array_equal(whole[tensor.offset : tensor.offset + tensor.n_bytes], tensor.data)


def test_parts_may_be_links_into_a_store(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The cache of a model hub holds files named by hash; the links to them have the parts' names."""
    store = tmp_path_factory.mktemp("store")
    for number in range(N):
        os.rename(path_of(folder, number), store / f"hash{number}")
        path_of(folder, number).symlink_to(store / f"hash{number}")
    with File.open(path_of(folder, 1)) as file:
        assert len(file.tensors) == 2 * N


def test_names_with_dots_and_newlines(folder: Path) -> None:
    for number in range(N):
        path = path_of(folder, number)
        path.rename(path.with_name("..\n-00001-of-00009.gguf" + path.name.removeprefix("model")))
    with File.open(folder / "..\n-00001-of-00009.gguf-00002-of-00003.gguf") as file:
        assert len(file.tensors) == 2 * N


@pytest.mark.parametrize("count", [0, 1])
def test_merged_model_is_one_file(tmp_path: Path, count: int) -> None:
    """Tools that merge parts leave a count of 0 behind."""
    (tmp_path / "any.gguf").write_bytes(part(0, count, total=2))
    with File.open(tmp_path / "any.gguf") as file:
        assert list(file.tensors) == ["a.0", "b.0"]
        assert file.parts == (tmp_path / "any.gguf",)


def test_part_name_of_a_whole_model_says_nothing(tmp_path: Path) -> None:
    path_of(tmp_path, 0).write_bytes(gguf([ARCHITECTURE], [row("a", [8])], bytes(32)))
    with File.open(path_of(tmp_path, 0)) as file:
        assert len(file.parts) == 1


Spoil = Callable[[Path], object]


def replace(number: int, content: bytes) -> Spoil:
    return lambda folder: path_of(folder, number).write_bytes(content)


def missing(folder: Path) -> None:
    path_of(folder, 1).unlink()


def duplicate(folder: Path) -> None:
    path_of(folder, 2).write_bytes(path_of(folder, 1).read_bytes())


def linked(folder: Path) -> None:
    path_of(folder, 2).unlink()
    os.link(path_of(folder, 1), path_of(folder, 2))


def reordered(folder: Path) -> None:
    path_of(folder, 1).rename(folder / "other")
    path_of(folder, 2).rename(path_of(folder, 1))
    (folder / "other").rename(path_of(folder, 2))


def one_from_a_whole_model(folder: Path) -> None:
    path_of(folder, 1).write_bytes(gguf([ARCHITECTURE], [row("a.1", [8]), row("b.1", [8], 0, 32)], bytes(64)))


def cut(folder: Path) -> None:
    path = path_of(folder, 2)
    path.write_bytes(path.read_bytes()[:-1])


BROKEN: dict[str, tuple[Spoil, type[ClarionError], str]] = {
    "missing part": (missing, FileError, "model-00002-of-00003.gguf: cannot be opened: No such file"),
    "duplicate part": (duplicate, FormatError, "00003-of-00003.gguf: offset .*'split.no' is 1, allowed: 2"),
    "the same file twice": (linked, FormatError, "00003-of-00003.gguf: offset .*'split.no' is 1, allowed: 2"),
    "reordered parts": (reordered, FormatError, "00002-of-00003.gguf: offset .*'split.no' is 2, allowed: 1"),
    "part that is cut": (
        cut,
        FormatError,
        "00003-of-00003.gguf: incomplete: 255 of 256 bytes: .*tensor 'b.2' is 32 and its end 64, allowed",
    ),
    "part of another split": (
        replace(1, part(1, count=4)),
        FormatError,
        "00002-of-00003.gguf: offset .*'split.count' is 4, allowed: 3",
    ),
    "a whole model as part": (
        one_from_a_whole_model,
        FormatError,
        "00002-of-00003.gguf: metadata 'split.count' is missing, allowed: 3",
    ),
    "part without the total": (
        replace(2, gguf([pair("split.no", U16, u16(2)), pair("split.count", U16, u16(3))])),
        FormatError,
        "00003-of-00003.gguf: metadata 'split.tensors.count' is missing",
    ),
    "parts disagree on the total": (
        replace(1, part(1, total=7)),
        FormatError,
        "00002-of-00003.gguf: offset .*'split.tensors.count' is 7, allowed: 6",
    ),
    "total disagrees with the parts": (
        replace(2, part(2, names="a")),
        FormatError,
        "00001-of-00003.gguf: offset .*'split.tensors.count' is 6, allowed: 5",
    ),
    "total per part instead of over all": (
        lambda folder: [path_of(folder, i).write_bytes(part(i, total=2)) for i in range(N)],
        FormatError,
        "'split.tensors.count' is 2, allowed: 6",
    ),
    "tensor in two parts": (
        replace(1, part(1).replace(b"b.1", b"b.0")),
        FormatError,
        "00002-of-00003.gguf: tensor 'b.0' comes again, it is in model-00001-of-00003.gguf already",
    ),
}


@pytest.mark.parametrize("opened", [0, 2])
@pytest.mark.parametrize("name", BROKEN)
def test_parts_that_do_not_belong_together(folder: Path, name: str, opened: int) -> None:
    spoil, expected, message = BROKEN[name]
    spoil(folder)
    with pytest.raises(expected) as caught:
        File.open(path_of(folder, opened))
    if opened == 0:  # from another part, a spoiled one may be read first and say it from its own view
        assert caught.match(message)


@pytest.mark.parametrize(
    "name",
    [
        "model.gguf",
        "model-00001-of-00003.gguf",  # says part 1 but is part 2
        "model-00002-of-00004.gguf",
        "model-2-of-3.gguf",
        "model-00002-of-00003.GGUF",
        "model-00002-of-00003.gguf.part",
    ],
)
def test_part_under_a_name_that_does_not_lead_to_the_others(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(part(1))
    with pytest.raises(
        FormatError, match=r"'split.no' is 1 of 3 parts, allowed: .*ends in '-00002-of-00003.gguf'"
    ):
        File.open(tmp_path / name)


def test_names_in_a_file_lead_nowhere(tmp_path: Path) -> None:
    """Nothing that a file says is used as a path: neither keys nor tensor names."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    (tmp_path / "inside").mkdir()
    pairs = [
        pair("split.no", U16, u16(0)),
        pair("split.count", U16, u16(2)),
        pair("split.tensors.count", I32, i32(1)),
        pair("split.prefix", STRING, text("../outside")),
    ]
    path = path_of(tmp_path / "inside", 0, 2)
    path.write_bytes(gguf(pairs, [row("../../outside", [8])], bytes(32)))
    with pytest.raises(FileError, match=f"^{path_of(tmp_path / 'inside', 1, 2)}: cannot be opened"):
        File.open(path)


def test_part_that_changes_after_loading(folder: Path) -> None:
    with File.open(path_of(folder, 0)) as file:
        file.check()
        with open(path_of(folder, 2), "r+b") as changed:
            changed.seek(-1, os.SEEK_END)
            changed.write(b"\xff")
        os.utime(path_of(folder, 2), ns=(0, 1))
        with pytest.raises(FileError, match=r"model-00003-of-00003\.gguf: cut, changed or unreadable since"):
            file.check()


def test_part_that_is_replaced_after_loading_is_the_old_one(folder: Path) -> None:
    with File.open(path_of(folder, 0)) as file:
        (folder / "new").write_bytes(b"other")
        (folder / "new").rename(path_of(folder, 2))
        file.check()
        assert bytes(file.tensors["a.2"].data) == bytes([2]) * 32
