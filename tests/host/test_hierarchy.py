"""Caches, cores, nodes and huge pages, from folders like the kernel's and from registers like CPUID's."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarion.host import caches, kernel_files
from clarion.host.caches import ASSUMED, Cache, fetches_near, from_cpuid, from_kernel, from_sysctl
from clarion.host.hierarchy import Node, hierarchy, huge_pages, nodes, physical_cores

from .files import cache, write

KIB, MIB = 1 << 10, 1 << 20


def test_caches_from_the_kernel(tmp_path: Path) -> None:
    files = {
        **cache("cpu0/cache/index0", 1, "Data", "48K", "0,4"),
        **cache("cpu0/cache/index1", 1, "Instruction", "32K", "0,4"),
        **cache("cpu0/cache/index2", 2, "Unified", "2048K", "0,4"),
        **cache("cpu0/cache/index3", 3, "Unified", "32M", "0-7", "128"),
        "cpu0/topology/thread_siblings_list": "0,4\n",
    }
    found = from_kernel(0, write(tmp_path, files))
    assert found == (
        Cache(1, 48 * KIB, 64, 1),
        Cache(2, 2 * MIB, 64, 1),
        Cache(3, 32 * MIB, 128, 4),
    )
    assert found[2].for_each_core == 8 * MIB


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cpu0/cache/index0/size", "0K"),
        ("cpu0/cache/index0/size", "99999999999999999999999G"),
        ("cpu0/cache/index1/size", "-1024K"),
        ("cpu0/cache/index1/level", "two"),
        ("cpu0/cache/index1/type", "Trace"),
        ("cpu0/cache/index0/size", b"\xff\xfe\x00"),
    ],
)
def test_caches_that_cannot_be(tmp_path: Path, name: str, content: str | bytes) -> None:
    files = {
        **cache("cpu0/cache/index0", 1, "Data", "48K", "0"),
        **cache("cpu0/cache/index1", 2, "Unified", "1M", "0"),
    }
    assert len(from_kernel(0, write(tmp_path / "good", files))) == 2
    assert from_kernel(0, write(tmp_path / "bad", {**files, name: content})) == ()


# Registers of processors: leaf 4 of an Ice Lake server core, and 0x8000001D of a Zen 4 core.
INTEL = {
    (0x80000000, 0): (0x80000008, 0, 0, 0),
    (0x0B, 0): (1, 2, 0x100, 0),
    (4, 0): (0x7C004121, 0x02C0003F, 0x3F, 0),
    (4, 1): (0x7C004122, 0x01C0003F, 0x3F, 0),
    (4, 2): (0x7C004143, 0x04C0003F, 0x3FF, 0),
    (4, 3): (0x7C0FC163, 0x02C0003F, 0xFFFF, 0),
}
AMD = {
    (0x80000000, 0): (0x80000021, 0, 0, 0),
    (0x0B, 0): (1, 2, 0x100, 0),
    (4, 0): (0, 0, 0, 0),
    (0x8000001D, 0): (0x4121, 0x01C0003F, 0x3F, 0),
    (0x8000001D, 1): (0x4122, 0x01C0003F, 0x3F, 0),
    (0x8000001D, 2): (0x4143, 0x01C0003F, 0x7FF, 2),
    (0x8000001D, 3): (0x3C163, 0x03C0003F, 0x7FFF, 9),
}


def test_caches_from_registers() -> None:
    intel = from_cpuid(lambda leaf, sub: INTEL.get((leaf, sub), (0, 0, 0, 0)))
    assert intel == (
        Cache(1, 48 * KIB, 64, 1),
        Cache(2, 1280 * KIB, 64, 1),
        Cache(3, 48 * MIB, 64, 32),
    )
    amd = from_cpuid(lambda leaf, sub: AMD.get((leaf, sub), (0, 0, 0, 0)))
    assert amd == (Cache(1, 32 * KIB, 64, 1), Cache(2, MIB, 64, 1), Cache(3, 32 * MIB, 64, 8))
    assert from_cpuid(lambda leaf, sub: None) == ()


@pytest.mark.parametrize(
    ("vendor", "version", "expected"),
    [
        (b"AuthenticAMD", 0x00B00F21, True),  # Zen 5
        (b"AuthenticAMD", 0x00A10F11, False),  # Zen 4
        (b"AuthenticAMD", 0x00A00F11, False),  # Zen 3
        (b"GenuineIntel", 0x00050657, False),  # Cascade Lake
        (b"GenuineIntel", 0x00B00F21, False),
    ],
)
def test_where_weights_are_fetched_to(vendor: bytes, version: int, expected: bool) -> None:
    b, d, c = (int.from_bytes(vendor[i : i + 4], "little") for i in (0, 4, 8))
    leaves = {0: (1, b, c, d), 1: (version, 0, 0, 0)}
    assert fetches_near(lambda leaf, _: leaves[leaf]) == expected
    assert not fetches_near(lambda leaf, _: None)


registers = st.none() | st.tuples(*[st.integers(0, 2**32 - 1)] * 4)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.tuples(st.sampled_from([4, 0x0B, 0x80000000, 0x8000001D]), st.integers(0, 5)), registers
    )
)
def test_any_registers(values: dict[tuple[int, int], tuple[int, int, int, int] | None]) -> None:
    for found in from_cpuid(lambda leaf, sub: values.get((leaf, sub))):
        assert found.line >= 1
        assert KIB <= found.for_each_core <= found.size


def test_caches_from_sysctl() -> None:
    apple = {
        "hw.cachelinesize": 128,
        "hw.perflevel0.l1dcachesize": 128 * KIB,
        "hw.perflevel0.l2cachesize": 12 * MIB,
        "hw.perflevel0.cpusperl2": 4,
        "hw.l1dcachesize": 64 * KIB,
        "hw.l2cachesize": 4 * MIB,
    }
    assert from_sysctl(apple.get) == (Cache(1, 128 * KIB, 128, 1), Cache(2, 12 * MIB, 128, 4))
    assert from_sysctl({"hw.l1dcachesize": 1}.get) == ()


def test_nothing_known_is_assumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "from_kernel", lambda processor: from_kernel(processor, tmp_path))
    assert caches.detect(frozenset({0}))[1] in ("CPUID", "sysctl", "assumed")
    monkeypatch.setattr(caches, "from_cpuid", lambda _: ())
    monkeypatch.setattr("platform.system", lambda: "Linux")
    assert caches.detect(frozenset({0})) == (ASSUMED, "assumed")


def test_the_smaller_caches_of_unlike_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        **cache("cpu0/cache/index0", 1, "Data", "48K", "0"),
        **cache("cpu0/cache/index1", 2, "Unified", "2M", "0"),
        **cache("cpu9/cache/index0", 1, "Data", "32K", "9"),
        **cache("cpu9/cache/index1", 2, "Unified", "4M", "6-9"),
    }
    write(tmp_path, files)
    monkeypatch.setattr(caches, "from_kernel", lambda processor: from_kernel(processor, tmp_path))
    found, source = caches.detect(frozenset(range(10)))
    assert (found, source) == ((Cache(1, 32 * KIB, 64, 1), Cache(2, 4 * MIB, 64, 4)), "/sys")


def test_hyperthreads_are_one_core(tmp_path: Path) -> None:
    siblings = {0: "0,4", 1: "1,5", 4: "0,4", 5: "1,5"}
    write(tmp_path, {f"cpu{cpu}/topology/thread_siblings_list": s + "\n" for cpu, s in siblings.items()})
    usable = frozenset({0, 1, 4, 5})
    assert physical_cores(usable, tmp_path) == (frozenset({0, 4}), frozenset({1, 5}))
    assert physical_cores(frozenset({4, 5}), tmp_path) == (frozenset({4}), frozenset({5}))
    assert len(physical_cores(usable, tmp_path / "nothing here")) == 4


def test_nodes(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "online": "0-2",
        "node0/cpulist": "0-3",
        "node1/cpulist": "4-7",
        "node2/cpulist": "",
    }
    write(tmp_path, files)
    assert nodes(frozenset({2, 3, 4, 5, 6, 7}), tmp_path) == (
        Node(0, frozenset({2, 3}), False),
        Node(1, frozenset({4, 5, 6, 7}), True),
    )
    assert nodes(frozenset({2}), tmp_path / "nothing") == (Node(0, frozenset({2}), True),)


def test_huge_pages(tmp_path: Path) -> None:
    found = huge_pages(
        write(tmp_path, {"enabled": "always [madvise] never\n", "hpage_pmd_size": "2097152\n"})
    )
    assert found is not None
    assert (found.size, found.use) == (2 * MIB, "madvise")
    assert huge_pages(write(tmp_path, {"enabled": "always madvise never\n"})) is None
    assert huge_pages(tmp_path / "nothing") is None


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_any_file(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), {"file": content}) / "file"
        size, number, processors = (
            kernel_files.size(path),
            kernel_files.integer(path),
            kernel_files.processors(path),
        )
        assert size is None or size >= 0
        assert number is None or number >= 0
        assert processors is None or all(0 <= n < 1 << 16 for n in processors)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0-3,8", {0, 1, 2, 3, 8}),
        ("5", {5}),
        ("", None),
        ("3-1", None),
        ("0-99999999", None),
        ("a-b", None),
        ("1,", None),
    ],
)
def test_lists_of_processors(tmp_path: Path, text: str, expected: set[int] | None) -> None:
    assert kernel_files.processors(write(tmp_path, {"list": text}) / "list") == expected


def test_this_machine() -> None:
    found = hierarchy()
    assert sum(map(len, found.cores)) == len(found.processors) >= 1
    assert set(found.cache_bytes) == {"l1", "l2"}
    assert frozenset().union(*(node.processors for node in found.nodes)) <= found.processors
