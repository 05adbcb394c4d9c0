"""What a file is, by its first bytes and its last ones: for those that are not what a command wants.

Asked only when something went wrong: no file is refused for what it looks like, and a model that can be read
is read without this.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path

from clarion.errors import FileError, FormatError
from clarion.gguf.texts import size_text
from clarion.names import UNFINISHED

_HEAD_BYTES = 65_536
_TAIL_BYTES = 65_536  # where a zip archive, and so a llamafile, lists what is in it
_SHOWN_CHARACTERS = 60
AGAIN = "download it again"
PAGE, POINTER = "an HTML page", "a Git LFS pointer"
_QUANTIZE = "clarion quantize changes its formats"
# What programs call a file while they download it.
# Of a file that was cut by bytes, which is not what GGUF's own parts are.
_PIECE = re.compile(r"(.+\.gguf)[.-](?:part[._-]?\d+(?:of\d+)?|split[._-][a-z0-9]{1,3}|\d{3})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Kind:
    """What something is, in a person's words.

    Attributes:
        name: as "an HTML page".
        advice: what to do with it; may be empty.
        stands_in: for any file whatever: somebody's answer, a pointer to the file, nothing yet.
    """

    name: str
    advice: str = ""
    stands_in: bool = False


@dataclass(frozen=True, slots=True)
class _Look:
    """What is looked at."""

    path: Path
    head: bytes
    tail: bytes
    size: int


def recognise(path: str | os.PathLike[str]) -> Kind | None:
    """What a file or a folder is, None where that is not known or it cannot be read."""
    path = Path(path)
    try:
        if path.is_dir():
            return _folder(path)
        if not stat.S_ISREG(path.stat().st_mode):
            return Kind("a device or a pipe", "give the name of a file")
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(_HEAD_BYTES)
            file.seek(max(size - _TAIL_BYTES, 0))
            tail = file.read(_TAIL_BYTES)
    except (OSError, ValueError):
        return None
    return _recognise(_Look(path, head, tail, size))


def recognise_bytes(data: bytes, path: str | os.PathLike[str] = "") -> Kind | None:
    """The same for bytes that were read already, all of them or the first."""
    return _recognise(_Look(Path(path), data[:_HEAD_BYTES], data[-_TAIL_BYTES:], len(data)))


def instead(path: str | os.PathLike[str], wanted: str, *, any_kind: bool = True) -> str:
    """What a file is and what to do with it, for an error; nothing where that is not known.

    Args:
        wanted: what the file is not, as "a text".
        any_kind: False: only what stands in the place of a file, whatever that would be.
    """
    kind = recognise(path)
    return "" if kind is None or not (any_kind or kind.stands_in) else sentence(kind, wanted)


def sentence(kind: Kind, wanted: str) -> str:
    """This is such a thing, not what is wanted: and what to do."""
    return f"this is {kind.name}, not {wanted}" + (f": {kind.advice}" if kind.advice else "")


def incomplete(path: Path, what: str, detail: str) -> FormatError:
    """The error for a file that is cut, `what` saying how much there is of it."""
    return FormatError(f"{path}: incomplete: {what}: {cut_advice(path)} ({detail})")


def cut_advice(path: Path) -> str:
    """What to do about a file that ends too early."""
    if (whole := _whole_of(path)) is not None:
        return f"its name is that of a piece: put all of them together, as: cat PIECES > {whole}"
    return _unfinished(path) or AGAIN


def control_file(path: Path) -> Path | None:
    """aria2's notes beside a file, which are there as long as its download is not finished."""
    notes = os.fspath(path) + ".aria2"
    return Path(notes) if os.path.isfile(notes) else None


# ---- files ------------------------------------------------------------------------------------------------


def _recognise(look: _Look) -> Kind | None:
    for of in (_nothing, _ours, _weights, _archive, _page, _program, _other, _piece, _text):
        if (kind := of(look)) is not None:
            return kind
    return None


def _nothing(look: _Look) -> Kind | None:
    if look.path.suffix == ".aria2":
        return Kind("aria2's notes on a download", "start aria2c again with --continue to finish it")
    if not look.size:
        return Kind("an empty file", _unfinished(look.path) or AGAIN, stands_in=True)
    if not any(look.head):
        advice = _unfinished(look.path) or "let it finish, or download it again"
        return Kind("a file that begins with zeros, as unfinished downloads do", advice, stands_in=True)
    return None


_OLDER = {
    b"lmgg": "an older GGML file (ggml)",
    b"fmgg": "an older GGML file (ggmf)",
    b"tjgg": "an older GGML file (ggjt)",
    b"algg": "an older GGML file (ggla, a LoRA adapter)",
    b"nsgg": "a session of llama.cpp",
    b"qsgg": "a stored sequence of llama.cpp",
}


def _ours(look: _Look) -> Kind | None:
    if look.head[:4] == b"GGUF":
        return Kind("a GGUF file")
    # What was meant as one number lies the other way round in files of little-endian machines.
    for magic in (look.head[:4], look.head[3::-1]):
        if magic in _OLDER:
            advice = "nothing reads it any more; get the same model as GGUF, or convert its checkpoint"
            return Kind(_OLDER[magic], advice)
    return _older_imatrix(look)


def _older_imatrix(look: _Look) -> Kind | None:
    """Entries' number, then of the first one the length of its name, and its name."""
    n, length = (int.from_bytes(look.head[i : i + 4], "little") for i in (0, 4))
    name = look.head[8 : 8 + length]
    if 0 < n < 1 << 20 and 0 < length <= 128 and re.match(rb"(blk\.\d+|output)[\w.]*$", name):
        return Kind(
            "an importance matrix of the older form (.dat)",
            "write it as GGUF: llama-imatrix --in-file OLD.dat -o NEW.gguf",
        )
    return None


def _weights(look: _Look) -> Kind | None:
    head = look.head
    length = int.from_bytes(head[:8], "little")
    if 2 <= length <= 100_000_000 and re.match(rb'\{\s*("|\})', head[8:40]):
        return Kind("a file of safetensors weights", _convert_advice(look.path))
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return Kind("PyTorch weights or another pickle", _convert_advice(look.path))
    if head[4:8] == b"TFL3":
        return Kind("a TFLite model", _ONLY_GGUF)
    if head[:8] == b"\x89HDF\r\n\x1a\n":
        return Kind("an HDF5 file, as Keras writes it", _ONLY_GGUF)
    if head[:8] == b"LITERTLM":
        return Kind("a LiteRT-LM model", _ONLY_GGUF)
    if head[4:6] == b"ET" and head[6:8].isdigit():
        return Kind("an ExecuTorch program", _ONLY_GGUF)
    if head[:6] == b"\x93NUMPY":
        return Kind("a NumPy array")
    if re.match(rb"\x08[\x03-\x14](\x12[\x00-\x7f][\x20-\x7e]|[\x1a\x22\x32\x3a\x42])", head):
        return Kind("an ONNX model", _ONLY_GGUF)
    if re.match(rb"\x08\x01\x12", head) and look.path.suffix == ".pb":
        return Kind("a TensorFlow model", _ONLY_GGUF)
    if re.match(rb"\n.\n[\x01-\x40].{1,64}\x15", head, re.DOTALL):
        return Kind("a sentencepiece tokenizer", _convert_advice(look.path))
    return None


_ONLY_GGUF = "get the same model as GGUF, or convert its checkpoint for transformers"


def _archive(look: _Look) -> Kind | None:
    head, name = look.head, shlex.quote(look.path.name)
    if head[:4] == b"PK\x03\x04":
        length = int.from_bytes(head[26:28], "little")
        first = head[30 : 30 + length]
        if b"data.pkl" in head[:1024]:
            return Kind("a PyTorch archive", _convert_advice(look.path))
        if first.endswith(b".npy"):
            return Kind("a NumPy archive")
        if look.path.suffix == ".keras" or b"model.weights.h5" in head + look.tail:
            return Kind("a Keras archive", _ONLY_GGUF)
        if b".gguf" in first or b".gguf" in look.tail:
            return Kind("a zip archive with a GGUF file in it", f"unpack it first: unzip {name}")
        return Kind("a zip archive", f"unpack it first: unzip {name}")
    unpack = {
        b"\x1f\x8b": ("a gzip archive", "gunzip"),
        b"BZh": ("a bzip2 archive", "bunzip2"),
        b"\xfd7zXZ\0": ("an xz archive", "unxz"),
        b"\x28\xb5\x2f\xfd": ("a zstd archive", "unzstd"),
        b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "7z x"),
        b"Rar!\x1a\x07": ("a rar archive", "unrar x"),
        b"\x04\x22\x4d\x18": ("an lz4 archive", "unlz4"),
    }
    for magic, (what, command) in unpack.items():
        if head.startswith(magic):
            return Kind(what, f"unpack it first: {command} {name}")
    if head[257:262] == b"ustar":
        return Kind("a tar archive", f"unpack it first: tar xf {name}")
    return None


def _page(look: _Look) -> Kind | None:
    """What servers and version control send in the place of a file."""
    text = look.head[:2048].removeprefix(b"\xef\xbb\xbf").lstrip()
    while text.startswith(b"<!--") and b"-->" in text:
        text = text.partition(b"-->")[2].lstrip()
    if re.match(rb"<(!doctype\s+html|html|head|body|title|script|meta)\b", text, re.IGNORECASE):
        return Kind(PAGE, "download the file itself", stands_in=True)
    if re.match(rb"<\?xml|<[a-z]+>", text, re.IGNORECASE):
        said = re.search(rb"<message>(.{1,200}?)</message>", text, re.IGNORECASE | re.DOTALL)
        advice = f"the server says {_quoted(said[1])}" if said else ""
        return Kind("an XML text", advice, stands_in=True)
    if text.startswith((b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/")):
        size = re.search(rb"^size (\d{1,18})\s*$", text, re.MULTILINE)
        has = f" (the file has {size_text(int(size[1]))})" if size else ""
        return Kind(POINTER, f"run git lfs pull{has}", stands_in=True)
    return None


def _program(look: _Look) -> Kind | None:
    is_program = look.head.startswith((b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"))
    if not (is_program or look.head.startswith(b"#!")):
        return None
    if b".gguf" in look.tail:
        name = shlex.quote(look.path.name)
        return Kind("a llamafile, a program with a model in it", f"take that out: unzip {name} '*.gguf'")
    return Kind("a program") if is_program else None


def _other(look: _Look) -> Kind | None:
    for magic, name in {
        b"%PDF-": "a PDF document",
        b"\x89PNG": "a picture",
        b"\xff\xd8\xff": "a picture",
        b"GIF8": "a picture",
        b"RIFF": "a sound or a film",
        b"OggS": "a sound or a film",
        b"SQLite format 3\0": "a database",
    }.items():
        if look.head.startswith(magic):
            return Kind(name)
    return None


def _piece(look: _Look) -> Kind | None:
    whole = _whole_of(look.path)
    if whole is None or _is_text(look.head):
        return None
    return Kind("a later piece of a file", f"put all of them together, as: cat PIECES > {whole}")


def _text(look: _Look) -> Kind | None:
    if look.head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Kind("a text in UTF-16", "save it in UTF-8", stands_in=True)
    if not _is_text(look.head):
        return None
    text = look.head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] in (b"{", b"["):
        return _json(look, text)
    if look.size <= 1024 and b"\n" not in text.strip():
        return Kind(f"a line of text, {_quoted(text)}", stands_in=True)
    return Kind("a text")


def _json(look: _Look, text: bytes) -> Kind:
    """By the names in it: it may be cut, or too long to read for this."""
    names = set(re.findall(rb'"([\w-]{1,40})"\s*:', text))
    if b"weight_map" in names:
        return Kind("an index of a checkpoint's weights", _convert_advice(look.path))
    if names & {b"architectures", b"model_type"}:
        return Kind("the configuration of a checkpoint", _convert_advice(look.path))
    if b"mediaType" in names:
        return Kind("a manifest of Ollama", "the model is the largest file that it names, below blobs/")
    if names & {b"added_tokens", b"tokenizer_class"}:
        return Kind("a tokenizer", _convert_advice(look.path))
    said = re.search(rb'"(?:error|message|detail)"\s*:\s*"((?:[^"\\]|\\.){1,200})"', text)
    if said and look.size <= 4096:
        says = f"it says {_quoted(said[1])}"
        return Kind("a server's answer in the place of a file", says, stands_in=True)
    return Kind("a JSON text")


def _is_text(head: bytes) -> bool:
    """UTF-8, as far as it goes, without control characters."""
    try:
        # At most three bytes of the last character may be beyond the end.
        head[: len(head) - 3 if len(head) == _HEAD_BYTES else None].decode()
    except UnicodeDecodeError as error:
        if len(head) < _HEAD_BYTES or error.start < len(head) - 8:
            return False
    return not re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", head)


def _quoted(raw: bytes) -> str:
    """The beginning of a text, on one line."""
    text = " ".join(raw[: 4 * _SHOWN_CHARACTERS].decode("utf-8", "replace").split())
    return repr(text[:_SHOWN_CHARACTERS] + ("…" if len(text) > _SHOWN_CHARACTERS else ""))


# ---- folders, and what lies beside ------------------------------------------------------------------------


def _convert_advice(path: Path) -> str:
    """For a file of a checkpoint."""
    folder = path.parent
    if (folder / "config.json").is_file():
        return f"it belongs to a checkpoint, convert its folder: clarion convert {_shell(folder)} OUT.gguf"
    return (
        "clarion convert FOLDER OUT.gguf takes the whole checkpoint, "
        "with config.json and the tokenizer beside the weights"
    )


def _folder(path: Path) -> Kind:
    names = sorted(os.listdir(path))
    if "config.json" in names and "model_index.json" not in names:
        return Kind("a checkpoint", f"clarion convert {_shell(path)} OUT.gguf")
    models = [name for name in names if name.endswith(".gguf")]
    if models:
        more = f" or another of {len(models)}" if len(models) > 1 else ""
        return Kind("a folder", f"give the model in it: {_shell(path / models[0])}{more}")
    return Kind("a folder", _folder_advice(path, names))


def _folder_advice(path: Path, names: list[str]) -> str:
    """What a folder without config.json is, as far as that can be seen."""
    if "adapter_config.json" in names:
        return "it holds a LoRA adapter; merge it into its model first"
    if "model_index.json" in names:
        return "it holds an image model of diffusers, which is no language model"
    if "params.json" in names and any(name.endswith((".pth", ".safetensors")) for name in names):
        return "it holds a checkpoint in its maker's own form; get the one for transformers, with config.json"
    inside = sorted(path.glob("snapshots/*/config.json")) or sorted(path.glob("*/config.json"))
    if inside:
        return f"a checkpoint lies in it: clarion convert {_shell(inside[0].parent)} OUT.gguf"
    if any(name.endswith((".safetensors", ".bin", ".pth", ".pt")) for name in names):
        return "it has weights but no config.json; fetch that, and the tokenizer, as well"
    return "it holds no model" if names else "it is empty"


def no_checkpoint(path: Path) -> FileError:
    """The error for a folder without config.json, or for a file, in the place of a checkpoint."""
    if path.is_dir():
        try:
            names = sorted(os.listdir(path))
        except OSError as error:
            return FileError(f"{path}: cannot be read: {error.strerror}")
        models = [name for name in names if name.endswith(".gguf")]
        if models:
            model = _shell(path / models[0])
            advice = f"{model} is a GGUF file already: {_QUANTIZE}"
        else:
            advice = _folder_advice(path, names)
        return FileError(f"{path}: config.json is missing, expected a Hugging Face checkpoint: {advice}")
    kind = recognise(path)
    if kind is not None and kind.name == "a GGUF file":
        return FileError(f"{path}: this is {kind.name} already: {_QUANTIZE}")
    if kind is None:
        return FileError(f"{path}: this is a file, not a checkpoint: give the folder with config.json")
    return FileError(f"{path}: {sentence(kind, 'a checkpoint')}")


def _unfinished(path: Path) -> str | None:
    """What says that a file's download has not ended, if anything does."""
    if path.suffix.lower() in UNFINISHED:
        return f"its name ends in {path.suffix}, which downloads have until they end: let it finish"
    if (notes := control_file(path)) is not None:
        return f"its download is not finished, {notes.name} lies beside it: start aria2c again"
    return None


def _whole_of(path: Path) -> str | None:
    """The name of the file that this one is a piece of, by its own name."""
    match = _PIECE.fullmatch(path.name)
    return None if match is None else shlex.quote(match[1])


def _shell(path: Path) -> str:
    return shlex.quote(os.fspath(path))
