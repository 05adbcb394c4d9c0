"""Which native module this process uses: the best one that the processor has and the package holds.

The choice is made once, at the first call of `native`. `CLARION_ISA` overrides it.

An instruction set has a main module, `avx2`, and further ones, `avx2_formats`, with weight formats and
operations that only some models need. The main module asks for a further one when something that it holds is
named.
"""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import importlib.util
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from clarion.errors import DeviceError

_AVX2 = frozenset({"avx2", "fma", "f16c", "bmi2"})
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512vl", "avx512dq"}

_AVX512VNNI = _AVX512 | {"avx512_vnni"}
_TILES_GRANTED = "amx_tile:granted"

# Best first within each family of processors. Features have the names that Linux gives them in /proc/cpuinfo.
# `sve` stands behind `neon_i8mm`, since a processor that has both does as many products with either, and
# those of 16-bit activations in half of the instructions with the second.
MODULES: dict[str, dict[str, frozenset[str]]] = {
    "x86-64": {
        "amx": _AVX512VNNI | {"avx512_bf16", "amx_tile", "amx_int8", _TILES_GRANTED},
        "avx512bf16": _AVX512VNNI | {"avx512_bf16"},
        "avx512vnni": _AVX512VNNI,
        "avxvnni": _AVX2 | {"avx_vnni"},
        "avx512": _AVX512,
        "avx2": _AVX2,
        "sse42": frozenset({"ssse3", "sse4_1", "sse4_2"}),
    },
    "AArch64": {
        "sve2": frozenset({"asimd", "asimddp", "i8mm", "sve", "sve2", "svei8mm"}),
        "neon_i8mm": frozenset({"asimd", "asimddp", "i8mm"}),
        "sve": frozenset({"asimd", "sve"}),
        "neon_dotprod": frozenset({"asimd", "asimddp"}),
        "neon": frozenset({"asimd"}),
    },
    "RISC-V": {"rvv": frozenset({"riscv:v"})},
    "POWER": {"vsx": frozenset({"power:9"})},
    "IBM Z": {"zvector": frozenset({"vx", "vxe"})},
    "LoongArch": {"lasx": frozenset({"lasx"})},
    "any": {"portable": frozenset(), "generic": frozenset()},
}
_MACHINES = {
    "x86_64": "x86-64",
    "amd64": "x86-64",
    "aarch64": "AArch64",
    "arm64": "AArch64",
    "riscv64": "RISC-V",
    "ppc64le": "POWER",
    "ppc64": "POWER",
    "s390x": "IBM Z",
    "loongarch64": "LoongArch",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """One module: what processors it is for, what this one lacks for it, and whether it is installed."""

    name: str
    family: str
    missing_features: tuple[str, ...]
    installed: bool

    @property
    def usable(self) -> bool:
        return self.installed and not self.missing_features


@functools.cache
def processor_features() -> frozenset[str]:
    """What the first processor has, as the kernel lists it, and whether this process may use AMX's tiles."""
    if platform.system() == "Darwin":
        from clarion.host import sysctl

        return sysctl.features()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    features = parse_features(text)
    return features | {_TILES_GRANTED} if "amx_tile" in features and _request_tiles() else features


def parse_features(cpuinfo: str) -> frozenset[str]:
    """The features of the first processor in the text of /proc/cpuinfo; empty where it lists none.

    RISC-V has one string in their place, `rv64imv_zba`: its parts are `riscv:i`, `riscv:m` .. `riscv:zba`.
    POWER has its name, `POWER9`: it and those before are `power:9`, `power:8` ..
    """
    for line in cpuinfo.splitlines():
        key, value = (part.strip() for part in (line + ":").split(":")[:2])
        if key in ("flags", "Features", "features"):
            return frozenset(value.split())
        if key == "isa":
            letters, *extensions = value.removeprefix("rv64").split("_")
            return frozenset(f"riscv:{name}" for name in [*letters, *extensions])
        if key == "cpu" and (power := re.match(r"POWER(\d+)", value)):
            return frozenset(f"power:{n}" for n in range(1, int(power[1]) + 1))
    return frozenset()


def _request_tiles() -> bool:
    """Asks Linux (5.16 and later) for AMX's tiles, once for all threads; whether it grants them."""
    import ctypes  # 10 ms that only such a processor pays

    arch_prctl, request_permission, tile_data = 158, 0x1023, 18  # asm/unistd_64.h, asm/prctl.h
    status: int = ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data)
    return status == 0


def processor_name() -> str:
    """The processor's own name, or the machine type where it has none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    return value.strip()
    except OSError:
        return platform.machine()
    return platform.machine()


def choices() -> list[Choice]:
    """Every module of the package's table, best first."""
    features = processor_features()
    return [
        Choice(name, family, tuple(sorted(needed - features)), _installed(name))
        for family, modules in MODULES.items()
        for name, needed in modules.items()
    ]


def processor_family() -> str:
    """The family of modules that this processor may run, "any" where it has none of its own."""
    return _MACHINES.get(platform.machine().lower(), "any")


def choose(name: str | None = None) -> Choice:
    """The module to use: `name`, else `CLARION_ISA`, else the best usable one.

    Raises:
        DeviceError: the name is unknown, not installed, or needs features that the processor lacks.
    """
    wanted = name or os.environ.get("CLARION_ISA") or None
    table = {choice.name: choice for choice in choices()}
    if wanted is None:
        for choice in table.values():
            if choice.usable:
                return choice
        raise DeviceError("no native module is installed: found none of " + ", ".join(table))
    if wanted not in table:
        raise DeviceError(f"instruction set {wanted!r} is unknown; known: {', '.join(table)}")
    choice = table[wanted]
    if choice.family not in (processor_family(), "any"):
        raise DeviceError(
            f"instruction set {wanted!r} is for {choice.family} processors, this one is {platform.machine()}"
        )
    if not choice.installed:
        raise DeviceError(f"instruction set {wanted!r} is not part of this installation")
    if choice.missing_features:
        raise DeviceError(
            f"instruction set {wanted!r} needs {', '.join(choice.missing_features)}, "
            f"which this processor ({processor_name()}) lacks"
        )
    return choice


@functools.cache
def native(name: str | None = None) -> ModuleType:
    """The main module that `choose` picks, imported; it loads the further modules of its instruction set."""
    isa = choose(name).name
    module = importlib.import_module(f"clarion._native.{isa}")
    module.load_modules_with(functools.partial(_contents, isa))
    return module


def measures(name: str | None = None) -> ModuleType:
    """The module that measures what this processor can do with the instruction set that `choose` picks."""
    return importlib.import_module(f"clarion._native.{choose(name).name}_measure")


def _contents(isa: str, further: str) -> object:
    """What a further module gives to the main module of its instruction set."""
    name = f"{isa}_{further}"
    if not _installed(name):
        raise DeviceError(f"native module {name!r} is not part of this installation, though {isa!r} is")
    return importlib.import_module(f"clarion._native.{name}").CONTENTS


def module_sizes(isa: str) -> dict[str, int]:
    """The bytes of an instruction set's installed modules, by name: main one, further ones and quantizer."""
    sizes = {
        path.name.partition(".")[0]: path.stat().st_size
        for folder in importlib.import_module("clarion._native").__path__
        for path in Path(folder).iterdir()
        if path.name.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES))
    }
    return {name: sizes[name] for name in sorted(sizes) if _instruction_set(name) == isa}


def _instruction_set(module: str) -> str | None:
    """Whose module this is: that of the longest name of an instruction set that it begins with."""
    name = module.removeprefix("quantize_")
    names = (isa for modules in MODULES.values() for isa in modules)
    return max((isa for isa in names if f"{name}_".startswith(f"{isa}_")), key=len, default=None)


@functools.cache
def quantizer(name: str | None = None) -> ModuleType:
    """The module that quantizes, for the same instruction set."""
    return importlib.import_module(f"clarion._native.quantize_{choose(name).name}")


def _installed(name: str) -> bool:
    return importlib.util.find_spec(f"clarion._native.{name}") is not None
