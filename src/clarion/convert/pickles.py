"""PyTorch's `.bin` and `.pt` files without PyTorch: a zip archive with a pickle and the tensors' bytes.

A pickle is a program. The unpickler here lets it name five things, which are made for one file and forgotten
with it, and refuses every other name before anything is called.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clarion.convert.stored import ELEMENT_BYTES, Stored, check_shape, read_exactly
from clarion.errors import FileError, FormatError, UnsupportedError
from clarion.gguf.kinds import instead

MAX_PICKLE_BYTES = 256 * 1024 * 1024
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of name and extra field
_STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "ByteStorage": "U8",
    "CharStorage": "I8",
    "ShortStorage": "I16",
    "IntStorage": "I32",
    "LongStorage": "I64",
    "BoolStorage": "BOOL",
}


@dataclass(frozen=True, slots=True)
class _StorageType:
    dtype: str


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: str
    offset: int  # in the file
    n_bytes: int


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor before it has a name."""

    storage: _Storage
    first: int  # element of the storage
    shape: tuple[int, ...]


def read(path: Path) -> dict[str, Stored]:
    """The tensors of a file by name, none of them read yet.

    Raises:
        FileError: the file cannot be read.
        FormatError: it is no zip archive, or its parts contradict each other.
        UnsupportedError: the pickle asks for anything but tensors, or a tensor is not contiguous.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, NotImplementedError) as error:
        found = instead(path, "weights", any_kind=False)
        raise FormatError(
            f"{path}: not a zip archive of PyTorch ({error}); files from before PyTorch 1.6 are not read"
            f"{found and f': {found}'}"
        ) from error


def _read(path: Path, archive: zipfile.ZipFile) -> dict[str, Stored]:
    members = {info.filename: info for info in archive.infolist()}
    names = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(names) != 1:
        raise FormatError(f"{path}: found {len(names)} members named data.pkl, expected one")
    if members[names[0]].file_size > MAX_PICKLE_BYTES:
        raise FormatError(f"{path}: data.pkl has {members[names[0]].file_size} bytes, allowed: 256 MB")
    prefix = names[0].removesuffix("data.pkl")
    order = prefix + "byteorder"
    if order in members and archive.read(order) != b"little":
        raise UnsupportedError(f"{path}: byte order is not little-endian")
    storages = {
        name.removeprefix(prefix + "data/"): info
        for name, info in members.items()
        if name.startswith(prefix + "data/")
    }
    loader = _Unpickler(path, archive.read(names[0]), storages)
    try:
        found = loader.load()
    except (FileError, UnsupportedError):
        raise
    except Exception as error:  # whatever a malformed pickle makes of the machine that reads it
        raise FormatError(f"{path}: data.pkl cannot be read: {type(error).__name__}: {error}") from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping):
        raise FormatError(f"{path}: holds a {type(found).__name__}, expected names and tensors")
    tensors = {}
    for name, view in found.items():
        if not isinstance(name, str) or not isinstance(view, _View):
            raise FormatError(f"{path}: {name!r:.80} is a {type(view).__name__}, expected a tensor")
        tensors[name] = _stored(path, name, view)
    return tensors


def _stored(path: Path, name: str, view: _View) -> Stored:
    storage = view.storage
    size = ELEMENT_BYTES[storage.dtype]
    tensor = Stored(name, storage.dtype, view.shape, path, storage.offset + view.first * size)
    if view.first < 0 or view.first * size + tensor.n_bytes > storage.n_bytes:
        raise FormatError(
            f"{path}: tensor {name!r} takes elements {view.first} to {view.first + tensor.n_elements} "
            f"of a storage of {storage.n_bytes} bytes"
        )
    return tensor


class _Unpickler(pickle.Unpickler):
    def __init__(self, path: Path, data: bytes, storages: Mapping[str, zipfile.ZipInfo]) -> None:
        super().__init__(io.BytesIO(data))
        self._path = path
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        # New functions each time: a pickle may set attributes of what it was given.
        allowed: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda *arguments: self._tensor(*arguments),
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,  # a Parameter is its tensor
        }
        if (module, name) in allowed:
            return allowed[module, name]
        if module == "torch" and name in _STORAGES:
            return _StorageType(_STORAGES[name])
        raise UnsupportedError(
            f"{self._path}: the pickle asks for {module}.{name}, which is refused: only tensors are read"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        """("storage", type, key, device, number of elements): bytes in the member data/KEY."""
        match pid:
            case ("storage", _StorageType(dtype), str(key), str(), int(n_elements)) if key in self._storages:
                info = self._storages[key]
            case _:
                raise FormatError(f"{self._path}: the pickle asks for {pid!r:.80}, expected a storage")
        if info.compress_type != zipfile.ZIP_STORED:
            raise UnsupportedError(f"{self._path}: member {info.filename!r} is compressed")
        n_bytes = n_elements * ELEMENT_BYTES[dtype]
        if n_bytes != info.file_size:
            raise FormatError(
                f"{self._path}: member {info.filename!r} has {info.file_size} bytes, "
                f"expected {n_bytes} for {n_elements} elements of {dtype}"
            )
        return _Storage(dtype, self._data_offset(info), n_bytes)

    def _data_offset(self, info: zipfile.ZipInfo) -> int:
        header = read_exactly(self._path, info.header_offset, _LOCAL_HEADER.size, info.filename)
        signature, n_name, n_extra = _LOCAL_HEADER.unpack(header.tobytes())
        if signature != b"PK\x03\x04":
            raise FormatError(f"{self._path}: offset {info.header_offset}: no member begins here")
        return int(info.header_offset + _LOCAL_HEADER.size + n_name + n_extra)

    def _tensor(
        self, storage: Any, first: Any, shape: Any, strides: Any, *_: object
    ) -> _View:  # requires_grad, hooks, metadata
        if not isinstance(storage, _Storage) or type(first) is not int:
            raise FormatError(f"{self._path}: a tensor of {storage!r:.80} at {first!r:.80}")
        sizes = check_shape(f"{self._path}: a tensor", shape)
        expected = 1
        for size, stride in zip(reversed(sizes), reversed(strides), strict=True):
            if size > 1 and stride != expected:
                raise UnsupportedError(
                    f"{self._path}: a tensor of shape {list(sizes)} has strides {strides!r:.80}; "
                    f"only contiguous ones are read"
                )
            expected *= max(size, 1)
        return _View(storage, first, sizes)
