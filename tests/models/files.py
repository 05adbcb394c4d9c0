"""GGUF files for these tests, read with the gguf package, and models made up of zeros."""

from __future__ import annotations

import functools
import lzma
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from clarion.plan.sources import Sources

GOLDENS = Path(__file__).parent / "goldens"
ALL = sorted(path.stem for path in GOLDENS.glob("*.npz"))


def _encodes(name):
    with np.load(GOLDENS / f"{name}.npz") as arrays:
        return "vector" in arrays


ENCODERS = [name for name in ALL if _encodes(name)]  # they have vectors alone
NAMES = [name for name in ALL if name not in ENCODERS]
# They read texts in both directions, and have the rows of their last layer or the scores of a classifier.
BIDIRECTIONAL = sorted(f"encoders/{path.stem}" for path in (GOLDENS / "encoders").glob("*.npz"))


@dataclass(frozen=True)
class Format:
    name: str
    type_id: int


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    format: Format
    data: np.ndarray

    @property
    def view(self):
        return self.data.data


def unpack(name, folder):
    """The golden's GGUF file, written into the folder."""
    path = Path(folder) / f"{Path(name).name}.gguf"
    path.write_bytes(lzma.decompress((GOLDENS / f"{name}.gguf.xz").read_bytes()))
    return path


def expected(name):
    """The golden's ids [T] and logits [T, n], of all tokens of the vocabulary or of the first."""
    with np.load(GOLDENS / f"{name}.npz") as arrays:
        return arrays["ids"], arrays["logits"]


def vectors(name):
    """An encoder's golden: ids [T], normalised rows [T, n_embd], and the text's vector [n]."""
    with np.load(GOLDENS / f"{name}.npz") as arrays:
        return arrays["ids"], arrays["rows"], arrays["vector"]


def context(name):
    """The longest sequence that the golden's logits hold for; None: any."""
    with np.load(GOLDENS / f"{name}.npz") as arrays:
        return int(arrays["context"]) if "context" in arrays else None


def kind(name):
    """transformers' model type of the checkpoint that the golden was converted from; None: it was not."""
    with np.load(GOLDENS / f"{name}.npz") as arrays:
        return str(arrays["kind"]) if "kind" in arrays else None


def read(path):
    """Metadata and tensors of a file, as `clarion.models.build` takes them."""
    reader = gguf.GGUFReader(path)
    metadata = {
        name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")
    }
    tensors = {}
    for tensor in reader.tensors:
        shape = tuple(int(n) for n in reversed(tensor.shape))
        data = np.array(tensor.data).reshape(-1).view(np.uint8)
        fmt = Format(tensor.tensor_type.name, int(tensor.tensor_type))
        tensors[tensor.name] = Tensor(tensor.name, shape, fmt, data)
    return metadata, tensors


def zeros(name, *shape, fmt="F32"):
    """A tensor without content."""
    kind = gguf.GGMLQuantizationType[fmt]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return Tensor(
        name, shape, Format(fmt, int(kind)), np.zeros(int(np.prod(shape)) // block * size, np.uint8)
    )


@functools.cache
def _golden(name):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return read(unpack(name, folder))


def golden(name):
    """Metadata and tensors of a golden; the mappings may be changed."""
    metadata, tensors = _golden(name)
    return dict(metadata), dict(tensors)


class Arrays:
    """Weights made of tensors, as a source of bytes that stay where they are."""

    def __init__(self, weights, tensors):
        self._sources = Sources(weights, tensors)

    def data(self, name):
        return np.asarray(self._sources[name].view)


def mapped(name, program):
    """The golden's weights, as a program takes their bytes."""
    return Arrays(program.weights, _golden(name)[1])


def nmse(found, wanted):
    """Mean squared error over the variance of what is wanted, in as many columns as that has."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    found = found[..., : wanted.shape[-1]]
    return float(((found - wanted) ** 2).mean() / wanted.var())
