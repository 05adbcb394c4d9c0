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
from collections import Counter
from functools import partial, wraps
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
MAX_CHARACTERS: Final = 1 << 20  # of what `expandtabs` and `translate` take and give

# What makes long texts of short ones. The result may be as long as the output.
_GROWING_METHODS: Final = frozenset(
    {"center", "expandtabs", "join", "ljust", "replace", "rjust", "translate", "zfill"}
)
_GROWING_FILTERS: Final = ("center", "format", "indent", "join", "replace", "tojson", "wordwrap")
_COUNTING_FILTERS: Final = ("batch", "slice")
# Numbers among the arguments say how long the result becomes.
_SIZED: Final = frozenset({"center", "indent", "ljust", "rjust", "tojson", "zfill", *_COUNTING_FILTERS})

_METHODS: Final[dict[type, frozenset[str]]] = {
    str: frozenset(
        {
            *("capitalize", "casefold", "lower", "swapcase", "title", "upper"),
            *("center", "ljust", "lstrip", "rjust", "rstrip", "strip", "zfill"),
            *("count", "endswith", "find", "index", "rfind", "rindex", "startswith"),
            *("isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "islower"),
            *("isnumeric", "isprintable", "isspace", "istitle", "isupper"),
            *("format", "format_map", "join", "removeprefix", "removesuffix", "replace"),
            *("expandtabs", "translate"),
            *("partition", "rpartition", "rsplit", "split", "splitlines"),
        }
    ),
    list: frozenset({"copy", "count", "index"}),
    tuple: frozenset({"count", "index"}),
    dict: frozenset({"copy", "get", "items", "keys", "values"}),
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

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, Generation])
        self.limit = OUTPUT_CHARACTERS  # of the request at hand
        del self.globals["lipsum"]
        self.filters["attr"] = attribute
        self.filters["tojson"] = to_json
        for name in (*_GROWING_FILTERS, *_COUNTING_FILTERS):
            self.filters[name] = self._capped(name, self.filters[name], 1)
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
        return self._capped_method(obj, attribute, super().getattr(obj, attribute))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """`message['role']`: of an object, nothing but the key."""
        if isinstance(obj, dict):
            try:
                return obj[argument]
            except (KeyError, TypeError):
                return self.undefined(obj=obj, name=argument)
        return self._capped_method(obj, argument, super().getitem(obj, argument))

    def unsafe_undefined(self, obj: Any, attribute: str) -> Any:
        """Refuses at once; Jinja would wait until the value is used."""
        raise SecurityError(f"access to {attribute!r} of {type(obj).__name__!r} is forbidden")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuses products and powers whose size only an attacker wants."""
        if operator == "%":
            return self._capped("%", super().call_binop)(context, operator, left, right)
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

    def wrap_str_format(self, value: Any) -> Any:
        """`str.format` and `format_map`, which Jinja makes safe, with results that are not too long."""
        function = super().wrap_str_format(value)
        return None if function is None else self._capped(value.__name__, function)

    def _capped_method(self, obj: Any, name: object, method: Any) -> Any:
        if not isinstance(obj, str) or name not in _GROWING_METHODS or not callable(method):
            return method
        if name == "expandtabs":
            return partial(expand_tabs, obj)
        if name == "translate":
            return partial(translate, obj)
        return self._capped(str(name), method)

    def _capped(self, name: str, function: Any, first: int = 0) -> Any:
        """A function whose result, if it is a text, is at most as long as the output. `first`: the argument
        from which on numbers say how long it becomes, if it is such a function."""
        limit = MAX_ITEMS if name in _COUNTING_FILTERS else None

        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            for size in (*arguments[first:], *named.values()) if name in _SIZED else ():
                if isinstance(size, int) and size > (limit or self.limit):
                    raise SecurityError(f"{name!r} with {size} is too large")
            result = function(*arguments, **named)
            if isinstance(result, str) and len(result) > self.limit:
                raise SecurityError(f"the result of {name!r} is too large")
            return result

        return call


class Generation(Extension):
    """`{% generation %}` marks what a model wrote, for training. Here it is a scope, as a macro's body is."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("write"), [], [], body).set_lineno(line)

    def write(self, caller: Macro) -> str:
        """What the block holds."""
        return caller()


@jinja2.pass_environment
def attribute(environment: Sandbox, obj: Any, name: object) -> Any:
    """The filter `attr`: what `getattr` allows, but no key."""
    name = str(name)
    if isinstance(obj, dict) and name not in _METHODS[dict]:
        if hasattr(obj, name):
            environment.unsafe_undefined(obj, name)
        return environment.undefined(obj=obj, name=name)
    return environment.getattr(obj, name)


def expand_tabs(text: str, tabsize: int = 8) -> str:
    """`str.expandtabs`, if neither argument nor result is too long."""
    check_size("expandtabs", len(text))
    check_size("expandtabs", len(text) + text.count("\t") * (max(tabsize, 0) - 1))
    return text.expandtabs(tabsize)


def translate(text: str, table: Any) -> str:
    """`str.translate`, if neither argument nor result is too long."""
    check_size("translate", len(text), len(table))
    size = 0
    for character, times in Counter(text).items():
        try:
            new = table[ord(character)]
        except LookupError:
            new = 0
        size += times * (len(new) if isinstance(new, str) else 1)
    check_size("translate", size)
    return text.translate(table)


def check_size(name: str, *sizes: int) -> None:
    """Refuses texts that are too long."""
    if max(sizes) > MAX_CHARACTERS:
        raise SecurityError(f"{name!r} of more than {MAX_CHARACTERS} characters")


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


def render(sandbox: Sandbox, template: str, variables: dict[str, Any]) -> str:
    """The template's output, at most as long as the sandbox's limit."""
    parts, limit = [], sandbox.limit
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
        sandbox.limit = OUTPUT_CHARACTERS + 4 * len(request)
        return {"output": render(sandbox, fields["template"], fields["variables"])}
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
    limits = {resource.RLIMIT_FSIZE: 0, resource.RLIMIT_CORE: 0}
    # macOS refuses this one: there a process has more addresses than that when it begins.
    if sys.platform != "darwin":
        limits[resource.RLIMIT_AS] = MEMORY_BYTES
    for limit, value in limits.items():
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
