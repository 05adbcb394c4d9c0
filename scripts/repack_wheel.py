"""Write a wheel again: with other tags or a further requirement, and with bytes that its files alone decide.

    python scripts/repack_wheel.py WHEEL FOLDER [--platform linux_x86_64] [--requires 'a>=1'] [--most-bytes N]

Entries are sorted, and have the date SOURCE_DATE_EPOCH and plain permissions. Prints the new file's path to
standard output, and the bytes of its native modules to standard error. Exit status 1 where one of them, or
the wheel, is too large.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import sys
import time
import zipfile
from pathlib import Path

MOST_MODULE_BYTES = 305_000
_FILE_MODE = 0o100644 << 16


def record_line(name: str, content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(content)}"


def with_requirement(metadata: str, requirement: str) -> str:
    """METADATA with one more Requires-Dist, where it is not there yet."""
    line = f"Requires-Dist: {requirement}"
    head, separator, body = metadata.partition("\n\n")
    lines = head.split("\n")
    if line not in lines:
        last = max(i for i, text in enumerate(lines) if text.startswith(("Requires-", "Version:")))
        lines.insert(last + 1, line)
    return "\n".join(lines) + separator + body


def with_platform(wheel: str, platform: str) -> str:
    """WHEEL with another platform in each tag."""
    lines = []
    for line in wheel.split("\n"):
        if line.startswith("Tag: "):
            line = line.rpartition("-")[0] + "-" + platform
        lines.append(line)
    return "\n".join(lines)


def repack(source: Path, folder: Path, platform: str | None, requirement: str | None) -> Path:
    """Write the wheel into a folder; return its path."""
    with zipfile.ZipFile(source) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    (record,) = [name for name in files if name.endswith(".dist-info/RECORD")]
    info = record.removesuffix("/RECORD")
    del files[record]
    name = source.name
    if platform is not None:
        files[f"{info}/WHEEL"] = with_platform(files[f"{info}/WHEEL"].decode(), platform).encode()
        name = f"{source.stem.rpartition('-')[0]}-{platform}.whl"
    if requirement is not None:
        files[f"{info}/METADATA"] = with_requirement(files[f"{info}/METADATA"].decode(), requirement).encode()
    # What describes the wheel stands last, as installers prefer; else in the order of names.
    order = sorted(files, key=lambda name: (name.startswith(info), name))
    files[record] = "".join(
        f"{line}\n" for line in [*(record_line(name, files[name]) for name in order), f"{record},,"]
    ).encode()
    date = time.gmtime(max(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), 315532800))[
        :6
    ]  # zip begins in 1980
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / name
    with zipfile.ZipFile(target, "w") as archive:
        for file in [*order, record]:
            entry = zipfile.ZipInfo(file, date)
            entry.create_system, entry.external_attr = 3, _FILE_MODE
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[file], compresslevel=9)
    return target


def too_large(wheel: Path, most_bytes: int) -> list[str]:
    """Print the sizes of the native modules; return what is larger than it may be."""
    found = []
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith((".so", ".pyd", ".dylib")):
                name = Path(entry.filename).name.partition(".")[0]
                print(f"{name:28} {entry.file_size:9,} bytes", file=sys.stderr)
                if entry.file_size > MOST_MODULE_BYTES:
                    found.append(f"{name} has {entry.file_size:,} bytes, more than {MOST_MODULE_BYTES:,}")
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size:,} bytes", file=sys.stderr)
    if size > most_bytes:
        found.append(f"{wheel.name} has {size:,} bytes, more than {most_bytes:,}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--platform")
    parser.add_argument("--requires")
    parser.add_argument("--most-bytes", type=int)
    arguments = parser.parse_args()
    target = repack(arguments.wheel, arguments.folder, arguments.platform, arguments.requires)
    print(target)
    problems = too_large(target, arguments.most_bytes) if arguments.most_bytes is not None else []
    for problem in problems:
        print(f"scripts/repack_wheel.py: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
