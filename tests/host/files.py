"""Folders like the kernel's, made on the spot."""

from __future__ import annotations

from pathlib import Path


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    """The folder `root` with these files in it; nothing is added to what they hold."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def cache(
    index: str, level: int, kind: str, size: str, shared: str, line: str = "64"
) -> dict[str, str | bytes]:
    """The files of one cache, as below /sys/devices/system/cpu."""
    values = {
        "level": level,
        "type": kind,
        "size": size,
        "shared_cpu_list": shared,
        "coherency_line_size": line,
    }
    return {f"{index}/{name}": f"{value}\n" for name, value in values.items()}
