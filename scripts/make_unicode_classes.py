"""Writes src/clarion/tokenizer/classes.bin: one class byte per code point of Unicode 15.1, compressed.

Run it with a Python whose `unicodedata` has that version (3.13). The version is fixed because token ids
depend on it: llama.cpp splits text by the categories of 15.1, whatever Python Clarion runs on.
"""

from __future__ import annotations

import sys
import unicodedata
import zlib
from pathlib import Path

VERSION = "15.1.0"
TARGET = Path(__file__).parents[1] / "src/clarion/tokenizer/classes.bin"
WHITE_SPACE = {0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
CLASS_OF_CATEGORY = {"N": 0xD1, "L": 0xD2, "P": 0xD3, "M": 0xD4, "S": 0xD5, "C": 0xD6}
UNASSIGNED, VERTICAL_TAB = 0xD7, 0x0B


def class_of(code_point: int) -> int:
    """ASCII stands for itself, white space for a vertical tab, the rest for its category."""
    if code_point < 0x80:
        return code_point
    if code_point in WHITE_SPACE:
        return VERTICAL_TAB
    category = unicodedata.category(chr(code_point))
    return UNASSIGNED if category == "Cn" else CLASS_OF_CATEGORY[category[0]]


if __name__ == "__main__":
    if unicodedata.unidata_version != VERSION:
        sys.exit(f"this Python has Unicode {unicodedata.unidata_version}, needed is {VERSION}")
    TARGET.write_bytes(zlib.compress(bytes(map(class_of, range(0x110000))), 9))
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")
