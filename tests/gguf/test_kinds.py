"""Files are known by their first bytes, and named in a person's words."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.errors import FileError, FormatError, UnsupportedError
from clarion.gguf import File, Writer
from clarion.gguf.kinds import no_checkpoint, recognise, recognise_bytes
from tests.end_to_end.files import BUILT_IN
from tests.gguf.gguf_bytes import ARCHITECTURE, ARRAY, STRING, array, gguf, pair, row, text
from tests.gguf.other_files import NOISE, OTHER_FILES


def refused(path: Path, error: type[FileError] = FileError) -> str:
    """The message of a file that does not open, within a second."""
    began = time.perf_counter()
    with pytest.raises(error) as caught:
        File.open(path)
    assert time.perf_counter() - began < 1
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["model.gguf", "model.bin", "noname"])
@pytest.mark.parametrize("kind", OTHER_FILES)
def test_what_is_no_model_is_named(kind: str, name: str, tmp_path: Path) -> None:
    content, words = OTHER_FILES[kind]
    path = tmp_path / name
    path.write_bytes(content)
    message = refused(path, FormatError)
    assert "not a model" in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_bytes_that_were_read_already_are_named_alike(kind: str, tmp_path: Path) -> None:
    content, words = OTHER_FILES[kind]
    found = recognise_bytes(content)
    assert found is not None
    assert words[0] in found.name


def test_what_nobody_knows_keeps_the_readers_message(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(NOISE)
    assert recognise(path) is None
    assert "offset 0: magic is b'" in refused(path, FormatError)


@given(st.binary(max_size=400))
def test_any_bytes_have_a_name_or_none(data: bytes) -> None:
    found = recognise_bytes(data)
    assert found is None or found.name


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_beginnings_of_other_files(kind: str) -> None:
    """A download may end anywhere."""
    content, _ = OTHER_FILES[kind]
    for size in range(1, min(len(content), 300)):
        found = recognise_bytes(content[:size])
        assert found is None or found.name


def test_a_text_that_never_ends_is_named_at_once(tmp_path: Path) -> None:
    for piece in (b"<!-- -->", b'{"a": ', b'"', b"a", b"<message>", b"\xc3\xa4"):
        path = tmp_path / "model.gguf"
        path.write_bytes(piece * (3_000_000 // len(piece)))
        refused(path)


# ---- downloads that ended early -----------------------------------------------------------------------


def small_model(path: Path) -> int:
    """Writes a file of some 1.1 MB and returns where its header ends."""
    with Writer(path, {"general.architecture": "llama", "x": ["word"] * 3000}) as writer:
        for i in range(4):
            writer.add(f"blk.{i}.w", (64, 1000), "F32", np.ones((64, 1000), "<f4"))
        writer.add("odd", (3,), "F32", np.ones(3, "<f4"))
    with File.open(path) as file:
        return min(tensor.offset for tensor in file.tensors.values())


@pytest.mark.parametrize("part", [0.999999, 0.9, 0.5, 0.1])
def test_a_file_that_is_cut_in_its_weights(part: float, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    begin = small_model(path)
    whole = path.stat().st_size
    size = begin + int((whole - 32 - begin) * part)
    os.truncate(path, size)
    message = refused(path, FormatError)
    assert f"incomplete: {size / 1e6:.1f} of 1.1 MB: download it again" in message or (
        # What is missing is less than a digit: then bytes are counted.
        f"incomplete: {size:,} of " in message
    )


@pytest.mark.parametrize("part", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_in_its_header(part: float, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    size = int(small_model(path) * part) + 1
    os.truncate(path, size)
    message = refused(path, FormatError)
    assert "incomplete: it ends after " in message
    assert "within its header: download it again" in message


def test_a_table_that_makes_no_sense_is_no_unfinished_download(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    for rows in (
        [row("t", [4], 0, 2**40)],  # a hole before it
        [row("t", [2**60], 0, 0)],  # more than any disk holds
        [row("a", [64], 0, 0), row("b", [6400], 0, 32)],  # one over the other
    ):
        path.write_bytes(gguf([ARCHITECTURE], rows, bytes(4096)))
        assert "incomplete" not in refused(path, FormatError)


def test_lengths_that_make_no_sense_are_no_unfinished_download(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    for kind, value in (
        (STRING, text("a", 2**62)),
        (ARRAY, array(STRING, 2**40)),
        (ARRAY, array(STRING, 2, text("a", 2**40))),
    ):
        path.write_bytes(gguf([pair("k", kind, value + bytes(range(1, 100)))]))
        assert "incomplete" not in refused(path, FormatError)


@pytest.mark.parametrize("part", [0.3, 0.6])
def test_room_that_was_made_before_the_download(part: float, tmp_path: Path) -> None:
    """The head is there, then zeros up to the file's size."""
    path = tmp_path / "model.gguf"
    begin = small_model(path)
    size = path.stat().st_size
    os.truncate(path, int(begin * part))
    os.truncate(path, size)
    message = refused(path, FormatError)
    assert "incomplete: nothing but zeros from byte " in message


@pytest.mark.parametrize("suffix", [".part", ".crdownload", ".partial", ".incomplete"])
def test_names_that_downloads_have(suffix: str, tmp_path: Path) -> None:
    whole = tmp_path / "model.gguf"
    small_model(whole)
    path = tmp_path / f"model.gguf{suffix}"
    path.write_bytes(whole.read_bytes())
    File.open(path).close()  # all of it is there
    os.truncate(path, 500_000)
    message = refused(path)
    assert "incomplete: 0.5 of 1.1 MB: " in message
    assert f"its name ends in {suffix}" in message
    path.write_bytes(bytes(1000))
    assert f"its name ends in {suffix}" in refused(path)
    whole.unlink()
    assert f"there is {path}, an unfinished download" in refused(whole)


def test_notes_of_aria2(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    notes = tmp_path / "model.gguf.aria2"
    small_model(path)
    notes.write_bytes(b"\0\x01\0\0" + bytes(100))
    message = refused(path)
    assert "incomplete: its download is not finished, model.gguf.aria2 lies beside it" in message
    assert "aria2's notes on a download" in refused(notes)
    os.truncate(path, 100_000)
    assert "model.gguf.aria2 lies beside it" in refused(path)
    notes.unlink()
    assert "download it again" in refused(path)


@pytest.mark.parametrize("name", ["m.gguf.part1of2", "m.gguf-split-a", "m.gguf.part01", "m.gguf.001"])
def test_pieces_that_were_cut_by_bytes(name: str, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    small_model(whole)
    first = tmp_path / name
    first.write_bytes(whole.read_bytes()[:600_000])
    message = refused(first)
    assert "incomplete: 0.6 of 1.1 MB" in message
    assert "cat PIECES > m.gguf" in message
    first.write_bytes(NOISE)
    message = refused(first)
    assert "a later piece of a file" in message
    assert "cat PIECES > m.gguf" in message


# ---- versions and byte order --------------------------------------------------------------------------


def test_versions_and_byte_order_say_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    for version, words in (
        (
            3 << 24,
            "version is 3 in big-endian byte order, allowed: 2 or 3, little-endian: .*gguf-convert-endian",
        ),
        (1, "version is 1, .*: it is of August 2023; get a newer file"),
        (4, "version is 4, allowed: 2 or 3"),
    ):
        path.write_bytes(gguf(version=version))
        with pytest.raises(UnsupportedError, match=words):
            File.open(path)


# ---- folders and names --------------------------------------------------------------------------------

FOLDERS: dict[str, tuple[tuple[str, ...], str]] = {
    "a checkpoint": (
        ("config.json", "model.safetensors"),
        "a checkpoint, not a model: clarion convert {} OUT.gguf",
    ),
    "one model": (("model.gguf", "README.md"), "a folder, not a model: give the model in it: {}/model.gguf"),
    "several models": (("a.gguf", "b.gguf"), "give the model in it: {}/a.gguf or another of 2"),
    "an adapter": (("adapter_config.json", "adapter_model.safetensors"), "a LoRA adapter"),
    "an image model": (("model_index.json",), "an image model"),
    "its maker's form": (("params.json", "consolidated.00.pth"), "its maker's own form"),
    "a folder further in": (("llama/config.json",), "clarion convert {}/llama OUT.gguf"),
    "the hub's cache": (
        ("refs/main", "snapshots/ab12/config.json"),
        "clarion convert {}/snapshots/ab12 OUT.gguf",
    ),
    "only weights": (("model.safetensors",), "it has weights but no config.json"),
    "something else": (("README.md",), "it holds no model"),
    "empty": ((), "it is empty"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders(kind: str, tmp_path: Path) -> None:
    names, message = FOLDERS[kind]
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    assert message.format(folder) in refused(folder)


def test_a_name_that_is_nearly_right(tmp_path: Path) -> None:
    path = tmp_path / "SmolLM2-135M-Instruct.Q4_1.gguf"
    path.touch()
    (tmp_path / "other.gguf").touch()
    assert f"is it {path}?" in refused(tmp_path / "SmolLM2-135M-instruct.Q4_1.gguf")
    (tmp_path / "q.gguf").touch()
    assert refused(tmp_path / "x.gguf").endswith("No such file or directory")
    assert refused(tmp_path / "quite-different.gguf").endswith("No such file or directory")
    assert refused(tmp_path / "nowhere" / "model.gguf").endswith("No such file or directory")


def test_a_name_whose_parts_are_there(tmp_path: Path) -> None:
    for name in ("model-00001-of-00002.gguf", "model-00002-of-00002.gguf", "model.x-00001-of-00003.gguf"):
        (tmp_path / name).touch()
    first = tmp_path / "model-00001-of-00002.gguf"
    for name in ("model.gguf", "model"):
        assert refused(tmp_path / name).endswith(f": it is in parts, of which any opens all: {first}")
    assert "in parts" not in refused(tmp_path / "mode.gguf")


def test_an_address_is_no_file() -> None:
    with pytest.raises(FileError, match="an address, not on this machine; to fetch it: clarion pull"):
        File.open("https://example.org/model.gguf")
    for name in ("owner/no-such-name", "hf.co/owner/name:Q4_K_M", "hf://owner/name"):
        with pytest.raises(
            FileError, match=r"as a name of Hugging Face's hub: |an address, not on this machine"
        ):
            File.open(name)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs users")
def test_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    assert refused(tmp_path).endswith("cannot be opened: not a regular file")
    assert "cannot be read: Permission denied" in str(no_checkpoint(tmp_path))


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    from clarion.convert import split

    first, second, *_ = split(BUILT_IN, tmp_path / "model.gguf", 3_000_000)
    second.unlink()
    with pytest.raises(
        FileError, match=r"00002-of-\d+.gguf: cannot be opened: No such file .*: it is part 2 of"
    ):
        File.open(first)


def test_a_checkpoints_file_names_its_folder(tmp_path: Path) -> None:
    content, _ = OTHER_FILES["safetensors"]
    folder = tmp_path / "my model"
    folder.mkdir()
    path = folder / "model.safetensors"
    path.write_bytes(content)
    assert "takes the whole checkpoint, with config.json and the tokenizer" in refused(path)
    (folder / "config.json").write_text("{}")
    assert f"clarion convert '{folder}' OUT.gguf" in refused(path)


def test_a_models_way_does_not_look_at_kinds() -> None:
    code = (
        f"import sys; from clarion.gguf import File; File.open({str(BUILT_IN)!r}).close()\n"
        "print('clarion.gguf.kinds' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
