"""The process that renders chat templates. A template comes from a file: nothing in it is trusted.

`template.py` runs this file as a script, so it imports nothing of Clarion's. Requests and replies are JSON
after four bytes of length. What a template can reach is JSON data and the few functions below. A signal that
nothing in the process handles ends it after two seconds of processor time; the operating system limits its
memory and keeps it from writing files.
"""

from __future__ import annotations

import datetime
import json
import resource
import signal
import struct
import sys
from typing import Any, BinaryIO, Final

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Namespace

CPU_SECONDS: Final = 2.0
MEMORY_BYTES: Final = 512 << 20
MAX_ITEMS: Final = 100_000  # of a range, or of a sequence that is multiplied
MAX_BITS: Final = 4096  # of an integer
OUTPUT_CHARACTERS: Final = 1 << 20  # and four times the request

_METHODS: Final[dict[type, frozenset[str]]] = {
    str: frozenset(
        {
            *("capitalize", "casefold", "lower", "swapcase", "title", "upper"),
            *("center", "ljust", "lstrip", "rjust", "rstrip", "strip", "zfill"),
            *("count", "endswith", "find", "index", "rfind", "rindex", "startswith"),
            *(
                "isalnum",
                "isalpha",
                "isdecimal",
                "isdigit",
                "islower",
                "isnumeric",
                "isspace",
                "istitle",
                "isupper",
            ),
            *("format", "join", "removeprefix", "removesuffix", "replace"),
            *("partition", "rpartition", "rsplit", "split", "splitlines"),
        }
    ),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
    dict: frozenset({"get", "items", "keys", "values"}),
    LoopContext: frozenset(
        {
            *("index", "index0", "revindex", "revindex0", "first", "last", "length", "depth", "depth0"),
            *("previtem", "nextitem", "cycle", "changed"),
        }
    ),
    Cycler: frozenset({"current", "next", "reset"}),
    Macro: frozenset({"name"}),
}


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja with the names and the behaviour that `transformers` gives chat templates, and less to reach."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
        del self.filters["attr"]
        del self.globals["lipsum"]
        self.filters["tojson"] = to_json
        self.globals["range"] = capped_range
        self.globals["raise_exception"] = raise_exception
        self.globals["strftime_now"] = strftime_now

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Values of namespaces, and methods that only look at their object."""
        if attr.startswith("_"):
            return False
        return isinstance(obj, Namespace) or any(
            attr in names for kind, names in _METHODS.items() if isinstance(obj, kind)
        )

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`message.role`: of an object, a method that is allowed, else the key."""
        if isinstance(obj, dict) and attribute not in _METHODS[dict]:
            return self.getitem(obj, attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`message['role']`: of an object, nothing but the key."""
        if isinstance(obj, dict):
            try:
                return obj[argument]
            except (KeyError, TypeError):
                return self.undefined(obj=obj, name=argument)
        return super().getitem(obj, argument)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        """Refuses at once; Jinja would wait until the value is used."""
        raise SecurityError(f"access to {attribute!r} of {type(obj).__name__!r} is forbidden")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuses products and powers whose size only an attacker wants."""
        if operator == "**":
            too_large = _bits(left) * abs(right) > MAX_BITS if isinstance(right, int) else False
        else:
            too_large = any(
                isinstance(sequence, str | list | tuple)
                and isinstance(times, int)
                and len(sequence) * times > MAX_ITEMS
                for sequence, times in ((left, right), (right, left))
            )
            too_large |= _bits(left) + _bits(right) > MAX_BITS
        if too_large:
            raise SecurityError(f"the result of {operator!r} is too large")
        return super().call_binop(context, operator, left, right)


class Generation(Extension):
    """`{% generation %}` marks what a model wrote, for training; here it means nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _bits(value: object) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as `transformers` writes it: nothing is escaped for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def capped_range(*arguments: int) -> range:
    """`range`, with few enough items."""
    numbers = range(*arguments)
    if len(numbers) > MAX_ITEMS:
        raise SecurityError(f"range of more than {MAX_ITEMS} items")
    return numbers


def raise_exception(message: object) -> None:
    """How templates refuse messages that they cannot render."""
    raise jinja2.TemplateError(str(message))


def strftime_now(pattern: str) -> str:
    """The local time."""
    return datetime.datetime.now().strftime(pattern)


def render(sandbox: Sandbox, template: str, variables: dict[str, Any], limit: int) -> str:
    """The template's output, at most `limit` characters."""
    parts = []
    for part in sandbox.from_string(template).generate(**variables):
        limit -= len(part)
        if limit < 0:
            raise SecurityError("the output is too long")
        parts.append(part)
    return "".join(parts)


def explain(error: Exception) -> str:
    """What happened, and in which line of the template."""
    line = error.lineno if isinstance(error, jinja2.TemplateSyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, RecursionError):
        message = "it nests too deeply"
    elif isinstance(error, MemoryError):
        message = f"it needs more than {MEMORY_BYTES >> 20} MB"
    elif isinstance(error, jinja2.TemplateError):
        message = str(error)
    else:
        message = f"{type(error).__name__}: {error}"
    return message if line is None else f"line {line}: {message}"


def answer(sandbox: Sandbox, request: bytes) -> dict[str, str]:
    """The reply to a request: the output, or what is wrong."""
    try:
        fields = json.loads(request)
        limit = OUTPUT_CHARACTERS + 4 * len(request)
        return {"output": render(sandbox, fields["template"], fields["variables"], limit)}
    except Exception as error:  # a template may raise anything
        return {"error": explain(error)}


def receive(stream: BinaryIO) -> bytes | None:
    """The next message, or None after the last."""
    header = stream.read(4)
    return stream.read(struct.unpack("<I", header)[0]) if len(header) == 4 else None


def send(stream: BinaryIO, message: dict[str, str]) -> None:
    """Writes a message."""
    data = json.dumps(message).encode()
    stream.write(struct.pack("<I", len(data)) + data)
    stream.flush()


def main() -> None:
    """Answers requests until there are no more."""
    sandbox = Sandbox()
    strftime_now("%c")  # what time needs from files, it reads now
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    send(sys.stdout.buffer, {"output": ""})
    while (request := receive(sys.stdin.buffer)) is not None:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        reply = answer(sandbox, request)
        signal.setitimer(signal.ITIMER_PROF, 0)
        send(sys.stdout.buffer, reply)


if __name__ == "__main__":
    main()
