"""The public names: what `clarion` shows, and that docs/python.md says how each is called."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import clarion
from clarion import loading

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
# What the calls in the table are written with.
OWNERS: dict[str, list[Any]] = {
    "clarion": [clarion],
    "clarion.Tokenizer": [clarion.Tokenizer],
    "clarion.loading": [loading],
    "model": [clarion.Model],
    "stream": [clarion.TextStream, clarion.AsyncTextStream],
}
PROPERTIES = {
    "bytes_per_token",
    "byte_products_per_token",
    "completion",
    "defaults",
    "figures",
    "tokenizer",
}


def documented() -> Iterator[tuple[bool, str, str, str]]:
    """Whether it is awaited, owner, name and parameters of each call in the table."""
    calls = re.findall(r"`(await )?([\w.]+)\.(\w+)\((.*?)\)`", PAGE[: PAGE.index("\n## ")], re.MULTILINE)
    return ((bool(awaited), owner, name, parameters) for awaited, owner, name, parameters in calls)


def signature(function: Callable[..., object]) -> str:
    """The parameters as a call is documented: without types and `self`."""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in ("self", "cls")
    ]
    return str(inspect.Signature(parameters))[1:-1]


@pytest.mark.parametrize(("awaited", "owner", "name", "parameters"), list(documented()))
def test_a_documented_call_is_how_it_is_called(awaited: bool, owner: str, name: str, parameters: str) -> None:
    functions = [getattr(kind, name) for kind in OWNERS[owner] if hasattr(kind, name)]
    assert functions
    for function in functions:
        assert parameters == signature(function)
    assert any(inspect.iscoroutinefunction(function) == awaited for function in functions)


def test_every_method_is_documented() -> None:
    calls = {(owner, name) for _, owner, name, _ in documented()}
    for owner, kinds in OWNERS.items():
        for kind in kinds:
            if inspect.isclass(kind) and kind is not clarion.Tokenizer:
                methods = {name for name in vars(kind) if not name.startswith("_")} - PROPERTIES
                assert methods
                assert {(owner, name) for name in methods} - calls == set()


def test_every_error_is_documented() -> None:
    for name in vars(clarion.errors):
        if name.endswith("Error"):
            assert f"`{name}`" in PAGE or f"`clarion.errors.{name}`" in PAGE


# ---- names ---------------------------------------------------------------------------------------------


def python(program: str) -> str:
    """What a new interpreter prints."""
    path = str(Path(clarion.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {path!r})\n{program}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout


def test_clarion_shows_its_public_names_only() -> None:
    names = [name for name in dir(clarion) if not name.startswith("__")]
    assert names == sorted(clarion.__all__)
    for name in names:
        assert getattr(clarion, name) is not None
    before, after = python(
        "import clarion\nprint(dir(clarion))\n"
        "with clarion.load(context=8, threads=1) as m: m.tokenize('x')\nprint(dir(clarion))"
    ).splitlines()
    assert before == after
    assert "load" in before


def test_errors_and_documented_packages_are_attributes() -> None:
    assert python("import clarion\nprint(clarion.errors.ClarionError.__name__)") == "ClarionError\n"
    for name in ("convert", "evaluate", "gguf", "quantize", "tokenizer"):
        assert python(f"import clarion\nprint(clarion.{name}.__name__)") == f"clarion.{name}\n"
    with pytest.raises(AttributeError, match="module 'clarion' has no attribute 'nothing'"):
        clarion.nothing  # noqa: B018
    assert python("from clarion import *\nprint(errors.__name__, load.__name__)") == "clarion.errors load\n"


def test_importing_clarion_imports_nothing_heavy() -> None:
    program = (
        "import clarion; clarion.errors; dir(clarion)\nprint({'numpy', 'jinja2', 'asyncio'} & {*sys.modules})"
    )
    assert python(program) == "set()\n"


def test_a_closed_model_shows_that_it_is() -> None:
    model = clarion.load(context=64, threads=1)
    assert re.fullmatch(r"<Model tale-q8_0\.gguf: llama, 7 M parameters>", repr(model))
    model.close()
    assert repr(model).endswith("7 M parameters, closed>")


def test_only_what_reads_a_tokenizer_json_imports_tokenizers() -> None:
    """The library is large; evaluating and quantizing do not need it."""
    code = "import sys; sys.modules['tokenizers'] = None; import clarion.convert, clarion.evaluate.evaluation"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
