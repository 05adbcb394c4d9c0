"""Fuzzes the GGUF reader: no bytes may give anything but a ClarionError, run long, or take memory.

    pip install atheris
    python fuzz/gguf_reader.py -max_total_time=3600 build/fuzz

The folder collects inputs that reach new code; the first run puts some valid files into it. Every libFuzzer
option is understood. A failing input is written to `crash-*` (`timeout-*`, `oom-*`) in the working directory;
give that file as the only argument to see what it does.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["clarion.gguf"]):
    from clarion.errors import ClarionError
    from clarion.gguf import File, Strings, Writer

# Most mutations that change a number make a file invalid at once, so words that mean something help.
WORDS = (
    *(b"GGUF\x02\0\0\0", b"GGUF\x03\0\0\0", b"general.alignment", b"general.architecture"),
    *(b"split.no", b"split.count", b"split.tensors.count", b"\xff" * 8, b"\xfd" + b"\xff" * 7),
)


def read_all(path: Path) -> None:
    """Does everything with a file that its users do."""
    with File.open(path) as file:
        for key in file.metadata:
            file.metadata.type(key)
            try:
                value = file.metadata[key]
                if isinstance(value, Strings):
                    list(value)
            except ClarionError:
                continue
        for tensor in file.tensors.values():
            if tensor.n_bytes != tensor.format.n_bytes(tensor.shape):
                raise RuntimeError(f"{tensor} has {tensor.n_bytes} bytes")
            tensor.data.sum()
        file.check()


def write_seeds(corpus: Path) -> None:
    rng = np.random.default_rng(0)
    values = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "llama.rope.freq_base": 1e4,
        "tokenizer.ggml.tokens": ["<s>", "a", "b", ""],
        "tokenizer.ggml.scores": [0.0, -1.0, -2.0, -3.0],
        "tokenizer.ggml.add_bos_token": True,
    }
    split = {"split.no": np.uint16(0), "split.count": np.uint16(2), "split.tensors.count": np.int32(2)}
    for name, metadata, alignment in (("plain", values, 32), ("aligned", values, 8), ("split", split, 32)):
        with Writer(corpus / name, metadata, alignment) as writer:
            writer.add("token_embd.weight", (4, 32), "Q8_0", rng.integers(0, 256, 4 * 34, np.uint8))
            writer.add("output_norm.weight", (32,), "F32", rng.integers(0, 256, 128, np.uint8))


def main() -> None:
    folder = Path(
        tempfile.mkdtemp(prefix="clarion-fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    )
    path = folder / "model-00001-of-00002.gguf"
    # The same bytes are both parts, so that a file which says it is split is followed further.
    (folder / "model-00002-of-00002.gguf").symlink_to(path.name)
    words = folder / "words"
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in WORDS))

    def one_input(data: bytes) -> None:
        path.write_bytes(data)
        try:
            read_all(path)
        except ClarionError:
            return

    for argument in sys.argv[1:]:
        corpus = Path(argument)
        if not argument.startswith("-") and not corpus.is_file():
            corpus.mkdir(parents=True, exist_ok=True)
            write_seeds(corpus)
    limits = ["-timeout=1", "-rss_limit_mb=1024", "-max_len=8192", f"-dict={words}"]
    # libFuzzer ends its process without returning, so somebody else must clear up.
    child = os.fork()
    if child == 0:
        atheris.Setup([sys.argv[0], *limits, *sys.argv[1:]], one_input)
        atheris.Fuzz()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, status = os.waitpid(child, 0)
    shutil.rmtree(folder)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
