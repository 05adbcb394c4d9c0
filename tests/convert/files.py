"""The golden checkpoints, unpacked, and files made by hand."""

from __future__ import annotations

import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np

from clarion.convert import convert
from clarion.quantize import quantize

GOLDENS = Path(__file__).parent / "goldens"
NAMES = sorted(path.stem for path in GOLDENS.glob("*.npz"))
# What a golden is written as: the types of `convert`, and recipes whose blocks fit into its narrow rows.
CONVERTED = ("f32", "f16", "bf16", "q8_0")
WRITTEN = (*CONVERTED, "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "Q4_K_M")


def unpack(name, folder):
    """The golden's checkpoint in a new folder."""
    raw = lzma.decompress((GOLDENS / f"{name}.tar.xz").read_bytes())
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        # The first releases of Python 3.11 know no filters; the archive is the repository's own.
        tar.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return Path(folder)


def write_as(kind, checkpoint, path):
    """The checkpoint as one of WRITTEN."""
    if kind in CONVERTED:
        return convert(checkpoint, path, kind)[0]
    (source,) = convert(checkpoint, path.with_suffix(".f32"), "f32")
    return quantize(source, path, kind).paths[0]


def without_window(folder):
    """The checkpoint, attending to everything: llama.cpp does not read the window of this family."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sliding_window": None}))
    return folder


def expected(name):
    """The golden's ids [T] and logits [T, n_vocab]."""
    with np.load(GOLDENS / f"{name}.npz") as arrays:
        return arrays["ids"], arrays["logits"]


def nmse(found, wanted):
    """Mean squared error over the variance of what is wanted."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    return float(((found - wanted) ** 2).mean() / wanted.var())


def safetensors_bytes(header, data=b""):
    """A file of a header, as an object or as raw bytes, and data."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


# Types by numpy's.
_DTYPES = {"f8": "F64", "f4": "F32", "f2": "F16", "u2": "BF16", "u1": "F8_E4M3"}
_DTYPES |= {"i1": "I8", "i4": "I32", "i8": "I64"}


def write_safetensors(path, tensors):
    """Arrays by name, `u2` as raw bfloat16 and `u1` as raw E4M3, or pairs of a type and an array."""
    header, data = {}, b""
    for name, found in tensors.items():
        dtype, values = found if isinstance(found, tuple) else (_DTYPES[found.dtype.str[1:]], found)
        begin = len(data)
        data += values.tobytes()
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [begin, len(data)]}
    path.write_bytes(safetensors_bytes(header, data))


def read_safetensors(path):
    """The same, back."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    tensors = {}
    for name, entry in json.loads(raw[8 : 8 + length]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            dtype = {"F32": np.float32, "BF16": np.uint16, "F8_E4M3": np.uint8}[entry["dtype"]]
            values = np.frombuffer(raw[8 + length + begin : 8 + length + end], dtype)
            tensors[name] = values.reshape(entry["shape"]).copy()
    return tensors


def write_archive(path, data_pkl, members=()):
    """A PyTorch archive with this pickle and these storages."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data_pkl)
        for name, data in members:
            archive.writestr(f"archive/data/{name}", data)


class Call:
    """Pickles as the call of a function with arguments."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def pickled(value):
    return pickle.dumps(value, protocol=2)
