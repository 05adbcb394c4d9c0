"""What people give to commands by mistake is named in their words, in one line, with exit code 2."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clarion.cli.main import execute
from clarion.gguf import File
from tests.convert.files import unpack
from tests.end_to_end.files import BUILT_IN
from tests.gguf.other_files import LFS, NOISE, OTHER_FILES

# Every command that takes a model, with the model's place.
WITH_A_MODEL: dict[str, Callable[[str, Path], list[str]]] = {
    "run": lambda model, folder: ["run", "-m", model, "x"],
    "tokenize": lambda model, folder: ["tokenize", "-m", model, "x"],
    "inspect": lambda model, folder: ["inspect", model],
    "inspect --json": lambda model, folder: ["inspect", model, "--json"],
    "check": lambda model, folder: ["check", model],
    "bench": lambda model, folder: ["bench", model],
    "eval": lambda model, folder: ["eval", model, "--text", f"{folder}/text.txt"],
    "eval --reference": lambda model, folder: [
        *("eval", str(BUILT_IN), "--text", f"{folder}/text.txt", "-c", "16", "--reference", model)
    ],
    "imatrix": lambda model, folder: ["imatrix", model, f"{folder}/text.txt", "-o", f"{folder}/out"],
    "quantize": lambda model, folder: ["quantize", model, f"{folder}/out", "Q4_0"],
    "split": lambda model, folder: ["split", model, f"{folder}/out"],
    "merge": lambda model, folder: ["merge", model, f"{folder}/out"],
}
CHECKPOINT = "mistral"  # one file of weights
SHOWN = [
    "html",
    "lfs",
    "safetensors",
    "torch",
    "older torch",
    "ggjt",
    "onnx",
    "tflite",
    "hdf5",
    "text",
    "gzip",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text("There was once a miller who had three sons.\n" * 120)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert execute(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("clarion: ")
    assert "internal error" not in line
    return line


@pytest.mark.parametrize("kind", SHOWN)
@pytest.mark.parametrize("command", WITH_A_MODEL)
def test_in_the_place_of_a_model(
    command: str, kind: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, words = OTHER_FILES[kind]
    path = folder / "model.gguf"
    path.write_bytes(content)
    line = refused(capsys, *WITH_A_MODEL[command](str(path), folder))
    assert line.startswith(f"clarion: {path}: this is {words[0]}") or words[0] in line
    for word in (*words, "not a model"):
        assert word in line
    assert not (folder / "out").exists()


@pytest.mark.parametrize("command", WITH_A_MODEL)
def test_a_truncated_download(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "model.gguf"
    shutil.copy(BUILT_IN, path)
    whole = path.stat().st_size
    os.truncate(path, whole // 2)
    line = refused(capsys, *WITH_A_MODEL[command](str(path), folder))
    assert f"incomplete: {whole / 2e6:.1f} of {whole / 1e6:.1f} MB: download it again" in line
    os.truncate(path, 50_000)
    line = refused(capsys, *WITH_A_MODEL[command](str(path), folder))
    assert "incomplete: it ends after 50.0 kB, within its header" in line


@pytest.mark.parametrize("command", WITH_A_MODEL)
def test_a_folder(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "ck").mkdir()
    (folder / "ck" / "config.json").write_text("{}")
    line = refused(capsys, *WITH_A_MODEL[command](f"{folder}/ck", folder))
    assert f"this is a checkpoint, not a model: clarion convert {folder}/ck OUT.gguf" in line


def test_what_only_looks_like_a_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "imatrix.gguf"
    arguments = ["imatrix", str(BUILT_IN), f"{folder}/text.txt", "-o", str(out), "-c", "64", "--chunks", "1"]
    assert execute(arguments) == 0
    capsys.readouterr()
    assert "an importance matrix, which clarion quantize takes as --imatrix" in refused(
        capsys, "run", "-m", str(out), "x"
    )
    line = refused(
        capsys, *("quantize", str(BUILT_IN), f"{folder}/o.gguf", "Q4_0", "--imatrix", str(BUILT_IN))
    )
    assert "expected 'imatrix': the file holds a model" in line


@pytest.mark.parametrize("kind", ["html", "lfs", "text", "imatrix.dat", "zip"])
def test_in_the_place_of_an_importance_matrix(
    kind: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, words = OTHER_FILES[kind]
    path = folder / "imatrix"
    path.write_bytes(content)
    line = refused(capsys, *("quantize", str(BUILT_IN), f"{folder}/o.gguf", "Q4_0", "--imatrix", str(path)))
    for word in (*words, "not an importance matrix"):
        assert word in line


TEXTS: dict[str, Callable[[str, Path], list[str]]] = {
    "eval": lambda text, folder: ["eval", "--text", text],
    "imatrix": lambda text, folder: ["imatrix", str(BUILT_IN), text, "-o", f"{folder}/out"],
    "run": lambda text, folder: ["run", "-f", text],
    "tokenize": lambda text, folder: ["tokenize", "-f", text],
}


@pytest.mark.parametrize("command", TEXTS)
def test_in_the_place_of_a_text(command: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "this is a GGUF file, not a text" in refused(capsys, *TEXTS[command](str(BUILT_IN), folder))
    assert "this is a program, not a text" in refused(capsys, *TEXTS[command](sys.executable, folder))
    for kind in ("gzip", "utf-16", "torch"):
        content, words = OTHER_FILES[kind]
        (folder / "x").write_bytes(content + b"\xff")
        assert words[0] in refused(capsys, *TEXTS[command](f"{folder}/x", folder))
    (folder / "x").write_bytes(b"caf\xe9 au lait")
    assert "found byte 0xe9 at offset 3, expected UTF-8" in refused(
        capsys, *TEXTS[command](f"{folder}/x", folder)
    )
    (folder / "x").write_bytes(NOISE)
    assert "expected UTF-8" in refused(capsys, *TEXTS[command](f"{folder}/x", folder))


# ---- convert ------------------------------------------------------------------------------------------


def converted(capsys: pytest.CaptureFixture[str], source: Path) -> str:
    out = source.parent / "out.gguf"
    line = refused(capsys, "convert", str(source), str(out))
    assert not out.exists()
    return line


def test_links_to_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dangling, loop = tmp_path / "d.gguf", tmp_path / "l.gguf"
    dangling.symlink_to(tmp_path / "nowhere")
    loop.symlink_to(loop)
    for command, path, said in (
        ("inspect", dangling, f"d.gguf: it is a link to {tmp_path / 'nowhere'}, which does not exist"),
        ("inspect", loop, "Too many levels of symbolic links"),
        ("convert", loop, "l.gguf: it is a link to"),
    ):
        assert execute([command, str(path), *([str(tmp_path / "out")] if command == "convert" else [])]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
        assert "internal error" not in line


def test_convert_takes_no_gguf_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "model.gguf"
    shutil.copy(BUILT_IN, path)
    assert f"{path}: this is a GGUF file already: clarion quantize" in converted(capsys, path)
    (folder / "some").mkdir()
    shutil.copy(BUILT_IN, folder / "some" / "model.gguf")
    assert "model.gguf is a GGUF file already: clarion quantize" in converted(capsys, folder / "some")


def test_convert_takes_folders(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = unpack(CHECKPOINT, folder / "checkpoint")
    line = converted(capsys, checkpoint / "model.safetensors")
    assert "this is a file of safetensors weights, not a checkpoint" in line
    assert f"convert its folder: clarion convert {checkpoint} OUT.gguf" in line
    assert "the configuration of a checkpoint" in converted(capsys, checkpoint / "config.json")
    for kind in ("html", "lfs", "text"):
        content, words = OTHER_FILES[kind]
        (folder / "x").write_bytes(content)
        line = converted(capsys, folder / "x")
        assert words[0] in line
        assert "not a checkpoint" in line
    (folder / "x").write_bytes(NOISE)
    assert "this is a file, not a checkpoint: give the folder with config.json" in converted(
        capsys, folder / "x"
    )


def test_convert_says_what_a_folder_lacks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = unpack("qwen3-fp8", folder / "checkpoint")
    shutil.copytree(checkpoint, folder / "no-config")
    (folder / "no-config" / "config.json").unlink()
    line = converted(capsys, folder / "no-config")
    assert (
        "config.json is missing, expected a Hugging Face checkpoint: it has weights but no config.json"
        in line
    )
    shutil.copytree(checkpoint, folder / "no-tokenizer")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "no-tokenizer" / name).unlink()
    assert "no tokenizer, expected tokenizer.json" in converted(capsys, folder / "no-tokenizer")
    (folder / "nothing").mkdir()
    assert "config.json is missing" in converted(capsys, folder / "nothing")
    assert "it is empty" in converted(capsys, folder / "nothing")


@pytest.mark.parametrize("kind", ["html", "lfs", "answer", "answer in a line", "empty", "zeros"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_what_stands_in_for_a_checkpoints_file(
    name: str, kind: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = unpack(CHECKPOINT, folder / "checkpoint")
    content, words = OTHER_FILES[kind]
    (checkpoint / name).write_bytes(content)
    line = converted(capsys, checkpoint)
    assert f"{checkpoint / name}" in line
    if name == "config.json" and kind == "answer":  # JSON, and an object
        return
    if name == "tokenizer.json" and kind == "answer":
        return
    for word in words:
        assert word in line


def test_weights_that_are_cut(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = unpack(CHECKPOINT, folder / "checkpoint")
    path = checkpoint / "model.safetensors"
    whole = path.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    for size in (8 + length, 8 + length + 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        line = converted(capsys, checkpoint)
        assert f"{path}: incomplete: " in line
        assert " of " in line
    path.write_bytes(whole[: length // 2])
    assert f"{path}: incomplete: it ends after " in converted(capsys, checkpoint)
    path.write_bytes(LFS.format("0" * 64, len(whole)).encode())
    assert "run git lfs pull" in converted(capsys, checkpoint)


# ---- names that are no UTF-8 --------------------------------------------------------------------------

NO_UTF8 = b"m\xffdel"


def process(*arguments: str | bytes | Path, cwd: Path) -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "clarion", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict", "PYTHONPATH": ":".join(sys.path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def test_names_that_are_no_utf8_are_names(folder: Path) -> None:
    path = os.fsencode(folder) + b"/" + NO_UTF8 + b".gguf"
    shutil.copy(BUILT_IN, path)
    shutil.copy(folder / "text.txt", os.fsencode(folder) + b"/t\xff.txt")
    unpack(CHECKPOINT, folder / "checkpoint").rename(folder / "c\udcff")
    imatrix = [b"--imatrix", NO_UTF8 + b".imatrix"]
    for arguments in (
        [b"inspect", path],
        [b"split", path, NO_UTF8 + b"-out.gguf", b"--max-size", b"4M"],
        [b"merge", path, NO_UTF8 + b"-merged.gguf"],
        [b"imatrix", path, b"t\xff.txt", b"-o", NO_UTF8 + b".imatrix", b"-c", b"64", b"--chunks", b"2"],
        [b"quantize", path, NO_UTF8 + b"-q4.gguf", b"Q4_0", b"--allow-requantize", *imatrix],
        [b"eval", path, b"--text", b"t\xff.txt", b"-c", b"64", b"--chunks", b"2", b"--report", b"r\xff.html"],
        [b"convert", b"c\xff", NO_UTF8 + b"-new.gguf"],
    ):
        code, out, err = process(*arguments, cwd=folder)
        assert code == 0, err
        assert b"Traceback" not in err
        assert b"\xff" in out
    with File.open(os.fsencode(folder).decode("utf-8", "surrogateescape") + "/m\udcffdel-new.gguf") as file:
        assert file.metadata.str("general.name") == "c\ufffd"


def test_a_terminal_that_knows_few_characters(folder: Path) -> None:
    for encoding in ("ascii:strict", "ascii:surrogateescape", "latin-1:strict"):
        done = subprocess.run(
            [sys.executable, "-m", "clarion", "inspect", str(BUILT_IN)],
            env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"'%', ?] (4,096 items)" in done.stdout


def test_names_that_are_no_utf8_in_errors(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    name = os.fsdecode(NO_UTF8)
    for arguments in (
        ["inspect", name],
        ["run", "-m", name, "x"],
        ["run", name],
        ["eval", "--text", name],
        ["convert", name, "out"],
        ["quantize", name, "out", "Q4_0"],
        ["inspect", "--program", "--isa", name],
        ["merge", str(BUILT_IN), f"no/{name}"],
        [name],
    ):
        line = refused(capsys, *arguments)
        line.encode("ascii")
        assert "m\\xffdel" in line or "0xff" in line or "m\\udcffdel" in line
    code, out, err = process(b"inspect", NO_UTF8, cwd=folder)
    assert (code, out) == (2, b"")
    assert err.startswith(b"clarion: m\\xffdel: no such file")
