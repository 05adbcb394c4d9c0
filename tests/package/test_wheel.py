"""What a person gets who installs a wheel on a bare machine: without a compiler, and without the sources."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from clarion.host.isa import choose
from tests.convert.files import unpack
from tests.convert.hub import Hub

ROOT = Path(__file__).parents[2]
REPACK = ROOT / "scripts" / "repack_wheel.py"
# What a plain install brings: what pyproject.toml names, what that needs, and nanobind's backend.
REQUIRED = {"click", "jinja2", "markupsafe", "numpy", "rich", "markdown-it-py", "mdurl", "pygments"}
REQUIRED |= {"clarion", "nanobind-backend", "prompt_toolkit", "wcwidth", "prometheus_client", "msgspec"}
REQUIRED |= {"httpx", "httpcore", "httptools", "h11", "starlette", "uvicorn"}
REQUIRED |= {"anyio", "certifi", "idna", "typing_extensions"}  # of these


def repacked(source: Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(REPACK), str(source), str(folder), *options],
        env={**os.environ, "SOURCE_DATE_EPOCH": "1600000000"},
        capture_output=True,
        text=True,
        check=False,
    )


def write_wheel(path: Path, names: list[str], date: tuple[int, int, int, int, int, int], size: int) -> Path:
    contents = {
        "a/__init__.py": b"",
        "a/native.abi3.so": bytes(size),
        "a-1.dist-info/METADATA": b"Name: a\nVersion: 1\nRequires-Dist: b\n\nText: no\n",
        "a-1.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp311-abi3-linux_x86_64\n",
        "a-1.dist-info/RECORD": b"",
    }
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name, date), contents[name])
    return path


NAMES = [
    "a/native.abi3.so",
    "a-1.dist-info/RECORD",
    "a-1.dist-info/WHEEL",
    "a/__init__.py",
    "a-1.dist-info/METADATA",
]


def test_a_wheel_written_again_has_the_same_bytes_whatever_the_order_and_the_dates(tmp_path: Path) -> None:
    name = "a-1-cp311-abi3-linux_x86_64.whl"
    one = write_wheel(tmp_path / "1" / name, NAMES, (2020, 1, 1, 0, 0, 0), 10)
    two = write_wheel(tmp_path / "2" / name, NAMES[::-1], (2021, 5, 4, 3, 2, 0), 10)
    options = ("--platform", "manylinux_2_27_x86_64", "--requires", "c>=1")
    written = [
        Path(repacked(source, folder, *options).stdout.strip())
        for source, folder in ((one, tmp_path / "3"), (two, tmp_path / "4"))
    ]
    assert [path.name for path in written] == ["a-1-cp311-abi3-manylinux_2_27_x86_64.whl"] * 2
    assert written[0].read_bytes() == written[1].read_bytes()
    with zipfile.ZipFile(written[0]) as archive:
        files = {entry: archive.read(entry) for entry in archive.namelist()}
    assert b"Tag: cp311-abi3-manylinux_2_27_x86_64\n" in files["a-1.dist-info/WHEEL"]
    assert b"Requires-Dist: b\nRequires-Dist: c>=1\n\nText: no" in files["a-1.dist-info/METADATA"]
    recorded = [row[0] for row in csv.reader(io.StringIO(files["a-1.dist-info/RECORD"].decode()))]
    assert recorded == list(files)


def test_a_wheel_or_a_module_that_is_too_large_fails(tmp_path: Path) -> None:
    name = "a-1-cp311-abi3-linux_x86_64.whl"
    large = write_wheel(tmp_path / "1" / name, NAMES, (2020, 1, 1, 0, 0, 0), 305_001)
    done = repacked(large, tmp_path / "2", "--most-bytes", "20000000")
    assert done.returncode == 1
    assert "native has 305,001 bytes, more than 305,000" in done.stderr
    small = write_wheel(tmp_path / "3" / name, NAMES, (2020, 1, 1, 0, 0, 0), 305_000)
    assert repacked(small, tmp_path / "4", "--most-bytes", "20000000").returncode == 0
    assert "more than 100" in repacked(small, tmp_path / "4", "--most-bytes", "100").stderr


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One process at a time works in the build folder."""
    folder = ROOT / "build" / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(target: str, dist: Path, **environment: str) -> Path:
    with alone():
        done = subprocess.run(
            [str(ROOT / "scripts" / "build-wheels"), target],
            env={**os.environ, "PYTHON": sys.executable, "DIST": str(dist), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if done.returncode == 3:
        pytest.skip(done.stdout.splitlines()[-1])
    assert done.returncode == 0, done.stdout
    (path,) = dist.iterdir()
    return path


class Environment:
    """A fresh virtual environment, in which programs find nothing but what is installed in it."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        self.folder = folder
        self.programs = folder / "venv" / "bin"
        paths = sysconfig.get_paths(vars={"base": str(folder / "venv"), "platbase": str(folder / "venv")})
        self.packages = Path(paths["purelib"])

    def run(self, *command: str, code: int = 0, environment: Mapping[str, str] | None = None) -> str:
        """Run a program of the environment; return all that it prints."""
        kept = {
            name: value for name, value in os.environ.items() if name.startswith(("PIP_", "XDG_", "SSL_"))
        }
        done = subprocess.run(
            [str(self.programs / command[0]), *command[1:]],
            cwd=self.folder,
            env=kept | {"PATH": str(self.programs), "HOME": str(self.folder)} | dict(environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def installed(self) -> set[str]:
        """The names of what is installed, but for the tools that an environment begins with."""
        lines = self.run("python", "-m", "pip", "list", "--format", "freeze").splitlines()
        names = {re.split("==| @ ", line)[0].lower() for line in lines if re.search("==| @ ", line)}
        return names - {"pip", "setuptools"}


def modules_of(isa: str) -> set[str]:
    """The files of a wheel with one instruction set."""
    further = {f"{isa}_{name}" for name in ("formats", "latent", "measure", "operations", "recurrent")}
    return {f"{name}.abi3.so" for name in (isa, *further, f"quantize_{isa}", "files", "sampling")}


@pytest.mark.full
@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="no wheels for this processor")
def test_a_wheel_from_the_beginning_to_the_end(tmp_path: Path) -> None:
    isa = choose().name
    wheel = build(f"linux-{platform.machine()}", tmp_path / "dist", MODULES=isa)
    assert re.fullmatch(rf"clarion-[\d.]+-cp311-abi3-manylinux_2_27_{platform.machine()}\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        modules = {Path(name).name for name in archive.namelist() if name.endswith(".so")}
    assert modules == modules_of(isa)
    # Linked, packed and named again: the same bytes.
    again = build(f"linux-{platform.machine()}", tmp_path / "again", MODULES=isa)
    assert again.read_bytes() == wheel.read_bytes()

    fresh = Environment(tmp_path)
    assert shutil.which("c++", path=str(fresh.programs)) is None
    fresh.run("python", "-m", "pip", "install", "--quiet", str(wheel))
    assert fresh.installed() == REQUIRED
    assert len(fresh.run("clarion", "run", "Once upon a time", "-n", "8").split()) >= 2
    assert re.search(rf"^module +{isa}: ", fresh.run("clarion", "doctor"), re.MULTILINE)
    checkpoint = unpack("llama3", tmp_path / "llama3")
    assert "pip install 'clarion[convert]'" in fresh.run(
        "clarion", "convert", str(checkpoint), "a.gguf", code=2
    )

    fresh.run("python", "-m", "pip", "install", "--quiet", f"{wheel}[convert,hub]")
    hub = Hub({"some/llama3": checkpoint})
    try:
        places = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "cache")}
        fresh.run("clarion", "convert", "some/llama3", "b.gguf", environment=places)
    finally:
        hub.close()
    assert fresh.run("clarion", "run", "b.gguf", "Hello", "--raw", "-n", "2")

    fresh.run("python", "-m", "pip", "uninstall", "--quiet", "--yes", "clarion")
    left = [path for folder in (fresh.packages, fresh.programs) for path in folder.glob("*clarion*")]
    assert left == []


@pytest.mark.full
@pytest.mark.parametrize(("machine", "isa"), [("arm64", "neon"), ("x86_64", "avx2")])
def test_a_wheel_for_macos_which_nothing_here_can_run(machine: str, isa: str, tmp_path: Path) -> None:
    # What a module is, loads and asks for, and that it is signed, scripts/build-wheels checks itself.
    wheel = build(f"macos-{machine}", tmp_path / "dist", MODULES=isa)
    assert re.fullmatch(rf"clarion-[\d.]+-cp311-abi3-macosx_11_0_{machine}\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        modules = {Path(name).name: archive.read(name) for name in archive.namelist() if name.endswith(".so")}
    assert set(modules) == modules_of(isa)
    magic, processor = {"arm64": (0xFEEDFACF, 0x0100000C), "x86_64": (0xFEEDFACF, 0x01000007)}[machine]
    assert {struct.unpack("<II", module[:8]) for module in modules.values()} == {(magic, processor)}
    again = build(f"macos-{machine}", tmp_path / "again", MODULES=isa)
    assert again.read_bytes() == wheel.read_bytes()


@pytest.mark.full
def test_the_source_archive_builds_alone(tmp_path: Path) -> None:
    archive = build("sdist", tmp_path / "dist")
    assert build("sdist", tmp_path / "again").read_bytes() == archive.read_bytes()
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "sources", filter="data")
    (sources,) = (tmp_path / "sources").iterdir()
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path)]
    done = subprocess.run(
        [*command, str(sources), "-C", "cmake.define.CLARION_ISA_MODULES=generic"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    (wheel,) = tmp_path.glob("clarion-*.whl")
    with zipfile.ZipFile(wheel) as built:
        assert any(re.fullmatch(r"clarion/_native/generic\..*so", name) for name in built.namelist())
