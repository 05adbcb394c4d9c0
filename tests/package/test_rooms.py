"""A room imports only from rooms to its left: nothing flows backwards."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "clarion"

# From left to right. What is not listed, as `clarion` itself, may be imported by nobody here.
ROOMS = (
    "errors",
    "exiting",
    "names",
    "folders",
    "_native",
    "gguf",
    "library",
    "tokenizer",
    "conversation",
    "plan",
    "models",
    "host",
    "residency",
    "runtime",
    "programs",
    "vectors",
    "model",
    "loading",
    "convert",
    "evaluate",
    "quantize",
    "server",
    "cli",
)
# The version, and what the commands show of the package to their readers, is the package's own.
PUBLIC = {"host": {"__version__"}, "library": {"__version__"}, "server": {"__version__"}, "cli": None}


def imports(path):
    """The rooms that a file imports from, and what it imports from the package itself."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            package, _, rest = node.module.partition(".")
            if package == "clarion":
                names = [alias.name for alias in node.names]
                yield (rest.partition(".")[0], names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                package, _, rest = alias.name.partition(".")
                if package == "clarion":
                    yield (rest.partition(".")[0], [])
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: a relative import"


def upward(room, path):
    """What a file of a room imports from its own right, or from the package itself."""
    for other, names in imports(path):
        if other == "":
            allowed = PUBLIC.get(room, set())
            if allowed is not None and not set(names) <= allowed:
                yield f"{path.name}: clarion ({', '.join(names)})"
        elif other != room and ROOMS.index(other) > ROOMS.index(room):
            yield f"{path.name}: {other}"


def test_every_room_is_in_the_order():
    """A new folder or module of the package has to be given its place."""
    found = {
        path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert found - {"__init__", "__main__"} == set(ROOMS)


def test_the_page_has_the_rooms_in_their_order():
    """docs/architecture.md, the table under "Rooms": its first column."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("\n## Rooms\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)
    assert re.findall(r"`(\w+)/?`", " ".join(cells)) == list(ROOMS)


def test_python_imports_from_the_left():
    for room in ROOMS:
        files = [SOURCE / f"{room}.py", *(SOURCE / room).rglob("*.py")]
        wrong = [text for path in files if path.exists() for text in upward(room, path)]
        assert not wrong, f"{room}: {wrong}"


def test_an_upward_import_is_found(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "def late():\n    from clarion.runtime.engine import Engine\n    from clarion import load\n"
    )
    assert list(upward("plan", wrong)) == ["wrong.py: runtime", "wrong.py: clarion (load)"]
    assert list(upward("cli", wrong)) == []
