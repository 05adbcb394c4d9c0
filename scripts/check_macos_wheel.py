"""Check the modules of a wheel for macOS, which cannot be run here.

    python scripts/check_macos_wheel.py WHEEL MACHINE VERSION        # arm64 or x86_64; 11.0

Each must be a bundle for that machine and version of macOS, load nothing but Apple's libc++ and libSystem,
leave to the process only what Python has, and be signed where the system wants it. Exit status 1 where one
is not. Whether Python's names belong to the stable interface, abi3audit says.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import lief

LIBRARIES = {"/usr/lib/libSystem.B.dylib", "/usr/lib/libc++.1.dylib"}
OF_THE_PROCESS = -2  # the number of the library of names that dyld looks up in all that is loaded


def problems(content: bytes, machine: str, version: tuple[int, int]) -> list[str]:
    """What is wrong with a module."""
    fat = lief.MachO.parse(list(content))
    if fat is None or fat.size != 1:
        return ["is no Mach-O file for one machine"]
    module = fat.at(0)
    found = []
    if module.header.cpu_type.name != machine.upper():
        found.append(f"is for {module.header.cpu_type.name}, expected {machine.upper()}")
    if module.header.file_type.name != "BUNDLE":
        found.append(f"is of the kind {module.header.file_type.name}, expected BUNDLE")
    needed = module.build_version.minos[:2] if module.has_build_version else None
    if needed is None or tuple(needed) > version:
        found.append(f"needs macOS {needed}, expected {version} or older")
    if others := {library.name for library in module.libraries} - LIBRARIES:
        found.append(f"loads {', '.join(sorted(others))}")
    if machine == "arm64" and not module.has_code_signature:
        found.append("has no signature")
    for symbol in module.imported_symbols:
        of_the_process = symbol.has_binding_info and symbol.binding_info.library_ordinal == OF_THE_PROCESS
        if of_the_process != symbol.name.startswith(("_Py", "__Py")):
            found.append(f"looks for {symbol.name} in {'the process' if of_the_process else 'a library'}")
    return found


def main() -> int:
    wheel, machine = Path(sys.argv[1]), sys.argv[2]
    major, minor = (int(part) for part in sys.argv[3].split("."))
    found, modules = [], 0
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith((".so", ".dylib")):
                modules += 1
                found += [f"{name} {what}" for what in problems(archive.read(name), machine, (major, minor))]
    if not modules:
        found.append(f"{wheel.name} has no modules")
    for problem in found:
        print(f"scripts/check_macos_wheel.py: {problem}", file=sys.stderr)
    print(f"{wheel.name}: {modules} modules for macOS {major}.{minor} on {machine}, {len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
