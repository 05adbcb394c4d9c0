"""Conversions under real conditions: a small disk that fills up, Ctrl-C, and how much memory they take."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.convert.files import unpack

N_VOCAB, WIDTH, N_FF = 65536, 1024, 2048
LARGEST = N_VOCAB * WIDTH * 2  # bytes of the embedding, in bfloat16
REPORT = """
import sys
from clarion.convert import convert
convert(*sys.argv[1:])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A checkpoint with a large embedding, whose weights are zeros that take no room on the disk."""
    folder = unpack("llama3", tmp_path_factory.mktemp("large") / "checkpoint")
    for path in folder.glob("model*"):
        path.unlink()
    config = json.loads((folder / "config.json").read_text())
    config |= {"vocab_size": N_VOCAB, "hidden_size": WIDTH, "intermediate_size": N_FF, "head_dim": 64}
    config |= {"num_attention_heads": 16, "num_key_value_heads": 16, "num_hidden_layers": 2}
    config |= {"tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {"model.embed_tokens.weight": (N_VOCAB, WIDTH), "model.norm.weight": (WIDTH,)}
    for layer in (f"model.layers.{i}" for i in range(2)):
        for name in "qkvo":
            shapes[f"{layer}.self_attn.{name}_proj.weight"] = (WIDTH, WIDTH)
        shapes[f"{layer}.mlp.gate_proj.weight"] = shapes[f"{layer}.mlp.up_proj.weight"] = (N_FF, WIDTH)
        shapes[f"{layer}.mlp.down_proj.weight"] = (WIDTH, N_FF)
        shapes[f"{layer}.input_layernorm.weight"] = (WIDTH,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (WIDTH,)
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    raw = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + end)
    return folder


@pytest.mark.sample(1)
@pytest.mark.parametrize("type", ["f32", "bf16", "f16", "q8_0"])
def test_memory_is_at_most_three_times_the_largest_tensor(large, tmp_path, type):
    """All of the process, the interpreter among it."""
    done = subprocess.run(
        [sys.executable, "-c", REPORT, large, tmp_path / "out.gguf", type], capture_output=True, check=True
    )
    kilobytes = int(done.stdout.split()[1])
    assert kilobytes * 1024 <= 3 * LARGEST
    assert (tmp_path / "out.gguf").stat().st_size > LARGEST // 2


@pytest.mark.parametrize("parts", [[], ["--split-max-size", "40M"]])
def test_ctrl_c(large, tmp_path, parts):
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.gguf").write_bytes(b"as it was")
    command = [
        sys.executable,
        "-m",
        "clarion",
        "convert",
        large,
        out / "model.gguf",
        "--type",
        "q8_0",
        *parts,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while len(os.listdir(out)) == 1 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == 130
    assert os.listdir(out) == ["model.gguf"]
    assert (out / "model.gguf").read_bytes() == b"as it was"


@pytest.mark.sample(1)
@pytest.mark.parametrize("kind", ["convert", "quantize"])
def test_a_terminal_sees_rate_and_time_left(large, tmp_path, kind):
    source = tmp_path / "source.gguf"
    arguments = ["convert", large, source, "--type", "f16"]
    if kind == "quantize":
        subprocess.run([sys.executable, "-m", "clarion", *arguments], check=True, stdout=subprocess.DEVNULL)
        arguments = ["quantize", source, tmp_path / "out.gguf", "Q4_K_M"]
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen(
        [sys.executable, "-m", "clarion", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        seen += data
    os.close(ours)
    assert process.wait(60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert re.search(kind + r" .*\d+(\.\d)?/\d+\.\d MB \d+\.\d MB/s 0:00:\d\d", text)


def small_disk(folder, n_bytes, *arguments):
    """Runs clarion where `folder` is a file system of so many bytes of its own, with model.gguf in it.

    Returns code, standard error and what is in the folder afterwards.
    """
    script = (
        f"mount -t tmpfs -o size={n_bytes} tmpfs {folder} || exit 99\n"
        f"printf 'as it was' >{folder}/model.gguf || exit 99\n"
        f'"$@"; code=$?; ls -A {folder}; head -c 9 {folder}/model.gguf; exit $code'
    )
    command = ["unshare", "--map-root-user", "--mount", "bash", "-c", script, "bash"]
    done = subprocess.run(
        [*command, sys.executable, "-m", "clarion", *arguments], capture_output=True, text=True
    )
    return done.returncode, done.stderr, done.stdout.splitlines()


def may_mount(folder):
    return shutil.which("unshare") is not None and small_disk(folder, 4096, "--version")[0] == 0


@pytest.mark.sample(2)
@pytest.mark.parametrize("kind", ["convert", "convert in parts", "split", "merge", "quantize"])
def test_a_disk_that_fills_up(tmp_path, kind):
    disk = tmp_path / "disk"
    disk.mkdir()
    if not may_mount(disk):
        pytest.skip("this process may not mount file systems of its own")
    checkpoint = unpack("llama3", tmp_path / "checkpoint")
    source = tmp_path / "source.gguf"

    def clarion(*arguments):
        subprocess.run([sys.executable, "-m", "clarion", *arguments], check=True, stdout=subprocess.DEVNULL)

    clarion("convert", checkpoint, source, "--type", "f32")
    clarion("split", source, tmp_path / "parts.gguf", "--max-size", "20K")
    part = min(tmp_path.glob("parts-*"))
    out = disk / "model.gguf"
    arguments = {
        "convert": ["convert", checkpoint, out, "--type", "f32"],
        "convert in parts": ["convert", checkpoint, out, "--type", "f32", "--split-max-size", "20K"],
        "split": ["split", source, out, "--max-size", "20K"],
        "merge": ["merge", part, out],
        "quantize": ["quantize", source, out, "F16"],
    }[kind]
    n_bytes = source.stat().st_size
    code, error, left = small_disk(disk, (n_bytes // 3 >> 12) << 12, *arguments)
    assert (code, left) == (2, ["model.gguf", "as it was"])
    assert error.count("\n") == 1
    assert "cannot be written: No space left on device" in error
    assert small_disk(disk, 4 * n_bytes, *arguments)[0] == 0


def test_without_the_tokenizers_library(tmp_path):
    folder = unpack("llama3", tmp_path / "checkpoint")
    (tmp_path / "tokenizers.py").write_text("raise ImportError")
    paths = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    done = subprocess.run(
        [sys.executable, "-m", "clarion", "convert", str(folder), str(tmp_path / "out.gguf")],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"clarion: {folder}/tokenizer.json: is read with the tokenizers library, which is not here; "
        "pip install 'clarion[convert]'\n"
    )
    assert not (tmp_path / "out.gguf").exists()
