"""What a file is that should have been another, in a person's words."""

from __future__ import annotations

import re

BOM = b"\xef\xbb\xbf"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_TIKTOKEN = re.compile(rb"[A-Za-z0-9+/]+=* \d+\r?\n")


def described(raw: bytes) -> str | None:
    """A predicate for bytes that are none of a checkpoint's formats; None where nothing is known of them."""
    start = raw[:512].removeprefix(BOM).lstrip()
    if not start:
        return "is empty"
    if start.startswith(_LFS_POINTER):
        return "is a pointer of Git LFS, not the file itself; fetch that with: git lfs pull"
    if re.match(rb"<[!?A-Za-z]", start):
        return "is a web page or XML"
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "is UTF-16"
    return None


def is_tiktoken(raw: bytes) -> bool:
    """Whether the bytes are a vocabulary of tiktoken: lines of base64 and a rank."""
    return _TIKTOKEN.match(raw) is not None
