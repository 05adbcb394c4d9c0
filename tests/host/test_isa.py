"""Which module is chosen, from /proc/cpuinfo of processors that are not at hand."""

from __future__ import annotations

import subprocess
import sys

import pytest

from clarion.errors import DeviceError
from clarion.host import isa, sysctl

USABLE = [choice.name for choice in isa.choices() if choice.usable]

X86 = "processor\t: 0\nmodel name\t: x\nflags\t\t: ssse3 sse4_1 sse4_2 avx2 fma f16c bmi2{}\n"
AVX512 = " avx512f avx512bw avx512vl avx512dq"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd{}\n"


@pytest.mark.parametrize(
    ("cpuinfo", "granted", "best"),
    [
        (X86.format(""), False, "avx2"),
        (X86.format(" avx_vnni"), False, "avxvnni"),
        (X86.format(AVX512), False, "avx512"),
        (X86.format(AVX512 + " avx512_vnni"), False, "avx512vnni"),
        (X86.format(AVX512 + " avx512_vnni avx512_bf16"), False, "avx512bf16"),
        (X86.format(AVX512 + " avx512_vnni avx512_bf16 amx_tile amx_int8"), True, "amx"),
        (X86.format(AVX512 + " avx512_vnni avx512_bf16 amx_tile amx_int8"), False, "avx512bf16"),
        ("flags\t: ssse3 sse4_1 sse4_2\n", False, "sse42"),
        ("flags\t: sse2\n", False, "portable"),
        (ARM.format(""), False, "neon"),
        (ARM.format(" asimddp"), False, "neon_dotprod"),
        (ARM.format(" asimddp i8mm"), False, "neon_i8mm"),
        (ARM.format(" sve"), False, "sve"),  # A64FX
        (ARM.format(" asimddp sve i8mm svei8mm"), False, "neon_i8mm"),  # Neoverse V1
        (ARM.format(" asimddp sve i8mm svei8mm sve2"), False, "sve2"),  # Neoverse V2
        ("processor\t: 0\nhart\t: 0\nisa\t: rv64imafdcv_zicsr_zba\n", False, "rvv"),
        ("processor\t: 0\nisa\t: rv64imafdc\n", False, "portable"),
        ("processor\t: 0\ncpu\t\t: POWER10 (architected), altivec supported\n", False, "vsx"),
        ("processor\t: 0\ncpu\t\t: POWER8E (raw), altivec supported\n", False, "portable"),
        ("vendor_id\t: IBM/S390\nfeatures\t: esan3 zarch vx vxd vxe gs\n", False, "zvector"),
        ("Features\t\t: cpucfg lam ual fpu lsx lasx\n", False, "lasx"),
        ("", False, "portable"),
    ],
)
def test_the_best_module(
    cpuinfo: str, granted: bool, best: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.delenv("CLARION_ISA", raising=False)
    monkeypatch.setattr(isa, "_installed", lambda name: True)
    monkeypatch.setattr(isa.Path, "read_text", lambda *_, **__: cpuinfo)
    monkeypatch.setattr(isa, "_request_tiles", lambda: granted)
    isa.processor_features.cache_clear()
    request.addfinalizer(isa.processor_features.cache_clear)
    assert isa.choose().name == best


@pytest.mark.parametrize(
    ("told", "best"),
    [
        ({"hw.optional.AdvSIMD": 1, "hw.optional.arm.FEAT_DotProd": 1}, "neon_dotprod"),  # M1
        (
            {"hw.optional.AdvSIMD": 1, "hw.optional.arm.FEAT_DotProd": 1, "hw.optional.arm.FEAT_I8MM": 1},
            "neon_i8mm",
        ),  # M2
        ({"hw.optional.AdvSIMD": 1}, "neon"),
        (
            {
                f"hw.optional.{name}": 1
                for name in ("supplementalsse3", "sse4_1", "sse4_2", "avx2_0", "fma", "f16c", "bmi2")
            },
            "avx2",
        ),
        (
            {
                "hw.optional.supplementalsse3": 1,
                "hw.optional.sse4_1": 1,
                "hw.optional.sse4_2": 1,
                "hw.optional.avx2_0": 0,
            },
            "sse42",
        ),
        ({}, "portable"),
    ],
)
def test_the_best_module_on_macos(
    told: dict[str, int], best: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.delenv("CLARION_ISA", raising=False)
    monkeypatch.setattr(isa, "_installed", lambda name: True)
    monkeypatch.setattr(isa.platform, "system", lambda: "Darwin")
    found = sysctl.features(told.get)
    monkeypatch.setattr(sysctl, "features", lambda: found)
    isa.processor_features.cache_clear()
    request.addfinalizer(isa.processor_features.cache_clear)
    assert isa.choose().name == best


def test_tiles_are_not_granted_to_a_processor_without_them() -> None:
    if "amx_tile" not in isa.processor_features():
        assert not isa._request_tiles()


LOADS = """
import sys
import numpy as np
from clarion.host import native

def loaded():
    return "clarion._native.{isa}_formats" in sys.modules

module = native("{isa}")
assert module.can_be_panels(8, 16) in (True, False)  # Q8_0, of the main module
assert module.dequantize(8, np.zeros(34, np.uint8), 32).tolist() == [0.0] * 32
assert not loaded()
{use}
assert loaded()
assert native("{isa}") is module
"""


@pytest.mark.parametrize(
    "use",
    [
        "module.dequantize(3, np.zeros(20, np.uint8), 32)",  # Q4_1
        "module.can_be_panels(23, 16)",  # IQ4_XS
        "module.interleave(3, 32, np.zeros(320, np.uint8), np.zeros(320, np.uint8))"
        " if module.can_be_panels(2, 16) else module.can_be_panels(3, 16)",
        "spec = dict(arena_bytes=0, max_tokens=1, max_outputs=0, buffers=[], ops=[], states=[], "
        "weights=[dict("
        "name='w', format=3, rows=1, cols=32, experts=1, data=np.zeros(20, np.uint8), panels=False)])\n"
        "module.Program(module.Machine(1), spec)",
    ],
    ids=["dequantize", "can_be_panels", "interleave", "program"],
)
@pytest.mark.parametrize("name", USABLE)
def test_a_further_module_is_loaded_when_something_names_what_it_holds(name: str, use: str) -> None:
    subprocess.run([sys.executable, "-c", LOADS.format(isa=name, use=use)], check=True)


def test_a_further_module_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isa, "_installed", lambda name: not name.endswith("_formats"))
    with pytest.raises(
        DeviceError, match="'avx9_formats' is not part of this installation, though 'avx9' is"
    ):
        isa._contents("avx9", "formats")


def test_sizes_of_modules() -> None:
    for name in USABLE:
        sizes = isa.module_sizes(name)
        further = {f"{name}_{part}" for part in ("formats", "latent", "measure", "operations", "recurrent")}
        assert set(sizes) >= {name} | further
        assert min(sizes.values()) > 10_000
    assert isa.module_sizes("avx9") == {}


@pytest.mark.parametrize(
    ("module", "of"),
    [
        ("neon", "neon"),
        ("neon_formats", "neon"),
        ("neon_i8mm", "neon_i8mm"),
        ("neon_i8mm_formats", "neon_i8mm"),
        ("quantize_neon_dotprod", "neon_dotprod"),
        ("avx512", "avx512"),
        ("avx512vnni_formats", "avx512vnni"),
        ("files", None),
    ],
)
def test_a_module_belongs_to_one_instruction_set(module, of):
    assert isa._instruction_set(module) == of
