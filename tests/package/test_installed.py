"""What `pip install .` puts on the disk, and what an import costs."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from importlib.metadata import files, version
from pathlib import Path, PurePosixPath

import pytest

import clarion

SOURCES = Path(__file__).parents[2] / "src"
MAX_MODULE_BYTES = 305_000
HEAVY = {"numpy", "tokenizers", "jinja2", "rich", "gguf", "asyncio"}


def installed() -> dict[PurePosixPath, Path]:
    """Return the distribution's files, by name relative to site-packages."""
    found = files("clarion")
    assert found is not None
    return {PurePosixPath(file): Path(str(file.locate())) for file in found}


MODULES = {name: path for name, path in installed().items() if name.suffix == ".so"}


def test_the_installed_package_is_the_one_under_test() -> None:
    assert Path(clarion.__file__) == installed()[PurePosixPath("clarion/__init__.py")]
    assert clarion.__version__ == version("clarion")


def test_every_source_file_is_installed_and_nothing_else() -> None:
    expected = {
        PurePosixPath(path.relative_to(SOURCES))
        for path in SOURCES.rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".so")
    }
    found = {
        name for name in installed() if name.parts[0] == "clarion" and name.suffix not in (".pyc", ".so")
    }
    assert found == expected


FORMS = ("{}", "{}_formats", "{}_latent", "{}_measure", "{}_operations", "{}_recurrent", "quantize_{}")


def test_each_instruction_set_has_its_modules() -> None:
    names = {name.name.partition(".")[0] for name in MODULES}
    sets = {"generic", "avx2", "avx512vnni"} if platform.machine() == "x86_64" else {"generic"}
    assert names >= {form.format(name) for name in sets for form in FORMS}


@pytest.mark.parametrize("name", MODULES, ids=lambda name: name.name.partition(".")[0])
def test_a_module_is_small(name: PurePosixPath) -> None:
    assert MODULES[name].stat().st_size <= MAX_MODULE_BYTES
    assert b".symtab" not in MODULES[name].read_bytes(), "not stripped"


def cpu_seconds(*command: str) -> float:
    """Return what a command needs of a processor at the least of five times: other processes hardly count."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return min(once() for _ in range(5))


def test_import_is_light() -> None:
    assert cpu_seconds(sys.executable, "-c", "import clarion") <= 0.150


def test_help_is_light() -> None:
    assert cpu_seconds(sys.executable, "-m", "clarion", "--help") <= 0.250


@pytest.mark.parametrize(
    "statement",
    ["import clarion", "from clarion.cli.main import execute; execute(['--help'])"],
    ids=["import", "help"],
)
def test_nothing_heavy_is_imported_early(statement: str) -> None:
    code = f"{statement}; import sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not HEAVY & set(done.stderr.split())
