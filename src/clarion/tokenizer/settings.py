"""What a GGUF file says about its tokenizer, read without touching the vocabulary."""

from __future__ import annotations

import reprlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from clarion.errors import TokenizerError, UnsupportedError
from clarion.tokenizer import pretokenizer
from clarion.tokenizer.pretokenizer import Pretokenizer

if TYPE_CHECKING:
    from clarion._native.files import Merging

OWN: Final = "tokenizer.clarion."  # begins the keys that only Clarion writes and reads
PROMPTS: Final = OWN + "prompt"  # begins the keys of what stands before texts of a kind
DEFAULT_PROMPT: Final = OWN + "default_prompt"  # the kind of texts of which nobody says it
TEXT_LENGTH: Final = OWN + "text_length"  # tokens of a text that becomes a vector, unless more are asked for
NORMALIZERS: Final = ("nfc", "prepend_space", "escape_space")
SPACE_PREFIXES: Final = ("always", "unless_space", "first", "never")
_NOT_SET: Final = 0xFFFFFFFF  # what converters write for -1
_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = 80
brief: Final = _brief.repr  # of a value in a message


class Fields:
    """Typed access to metadata. Errors name the key, what was found and what is expected."""

    def __init__(
        self, metadata: Mapping[str, Any], prefix: str = "", check: Callable[[], None] = lambda: None
    ) -> None:
        self._metadata = metadata
        self._prefix = prefix  # of messages
        self._check = check  # raises if what was read so far may be wrong

    def error(self, key: str, found: object, expected: str) -> TokenizerError:
        """The error that says what is wrong with a key."""
        return TokenizerError(f"{self._prefix}{key} is {found}, expected {expected}")

    def unsupported(self, message: str) -> UnsupportedError:
        """The error that says what the file asks for in vain."""
        return UnsupportedError(f"{self._prefix}{message}")

    def text(self, key: str) -> str | None:
        """A string, or None where the key is missing."""
        value = self._metadata.get(key)
        if value is not None and not isinstance(value, str):
            raise self.error(key, brief(value), "a string")
        return value

    def named_texts(self, key: str, default: str) -> dict[str, str]:
        """Strings by name: those under `key.NAME`, and under the key itself that which is named `default`."""
        names = {found.removeprefix(f"{key}.") for found in self._metadata if found.startswith(f"{key}.")}
        texts = {name: self.text(f"{key}.{name}") for name in sorted(names)} | {default: self.text(key)}
        return {name: text for name, text in texts.items() if text is not None}

    def flag(self, key: str, default: bool) -> bool:
        """A bool."""
        value = self._metadata.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, brief(value), "a bool")
        return value

    def count(self, key: str, default: int) -> int:
        """A whole number from 1."""
        value = self._metadata.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.error(key, brief(value), "a whole number from 1")
        return value

    def token(self, key: str, n_tokens: int, default: int | None = None) -> int | None:
        """A token id below `n_tokens`. The default holds where it is one, too."""
        value = self._metadata.get(key, _NOT_SET)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(key, brief(value), "a token id")
        if value in (_NOT_SET, -1):
            return default if default is not None and default < n_tokens else None
        if not 0 <= value < n_tokens:
            raise self.error(key, value, f"an id below the vocabulary's {n_tokens}")
        return value

    def tokens(self, key: str, n_tokens: int) -> tuple[int, ...] | None:
        """An array of token ids below `n_tokens`, or None where the key is missing."""
        values = self.ints(key, 0)
        for value in values or ():
            if not 0 <= value < n_tokens:
                raise self.error(key, f"an array with {value}", f"ids below the vocabulary's {n_tokens}")
        return None if values is None else tuple(values)

    def choice(self, key: str, allowed: tuple[str, ...]) -> str | None:
        """One of the strings, or None where the key is missing."""
        value = self.text(key)
        if value is not None and value not in allowed:
            raise self.unsupported(f"{key} is {brief(value)}; known are {', '.join(allowed)}")
        return value

    def sequence(self, key: str) -> Sequence[Any] | None:
        """An array of anything, or None where the key is missing."""
        # A file's metadata gives arrays of numbers without numpy, which would take half of the start.
        plain = getattr(self._metadata, "plain", self._metadata.get)
        value: Any = plain(key)
        if value is not None and (isinstance(value, str | bytes | Mapping) or not hasattr(value, "__len__")):
            raise self.error(key, brief(value), "an array")
        return value

    def strings(self, key: str) -> list[str] | None:
        """An array of strings. Bytes that are no UTF-8 become lone surrogates, as `surrogateescape` does."""
        values = self.sequence(key)
        if values is None:
            return None
        texts = getattr(values, "texts", None)
        if texts is not None:
            found: list[str] = texts()
            self._check()
            return found
        for value in values:
            if not isinstance(value, str):
                raise self.error(key, f"an array with {brief(value)}", "an array of strings")
        return list(values)

    def merging(self, key: str, tokens: str) -> Merging:
        """What merges by an array of strings, each two symbols with a space between, into those of `tokens`.

        Raises:
            TokenizerError: an array is missing, or a string is no merge.
        """
        from clarion._native.files import Merging

        found: list[Any] = []
        for name in (key, tokens):
            places = self._places(name)
            if places is None:
                raise self.error(name, "missing", "an array of strings")
            found += places
        try:
            made = Merging(*found)
        except ValueError as error:
            (index,) = error.args
            text = (self.strings(key) or [])[index]
            raise self.error(key, f"{brief(text)} at {index}", "two symbols with a space between") from None
        self._check()
        return made

    def _places(self, key: str) -> tuple[Any, Any, Any] | None:
        """Bytes that hold an array's strings, and where each begins and how long it is."""
        places = getattr(self.sequence(key), "places", None)
        if places is not None:
            found: tuple[Any, Any, Any] = places()
            return found
        strings = self.strings(key)
        if strings is None:
            return None
        raws = [text.encode("utf-8", "surrogateescape") for text in strings]
        lengths = array("q", map(len, raws))
        starts = array("q", accumulate(lengths, initial=0))
        return b"".join(raws), starts[:-1], lengths

    def floats(self, key: str, least: int) -> array[float] | None:
        """An array of at least `least` numbers in float32, none of them NaN."""
        values = self._numbers(key, least, "f", "an array of numbers")
        if values is not None and any(value != value for value in values):
            raise self.error(key, "an array with NaN", "an array of numbers")
        return values

    def ints(self, key: str, least: int) -> array[int] | None:
        """An array of at least `least` integers."""
        return self._numbers(key, least, "q", "an array of integers")

    def _numbers(self, key: str, least: int, kind: str, expected: str) -> array[Any] | None:
        values = self.sequence(key)
        if values is None:
            return None
        if len(values) < least:
            raise self.error(key, f"an array of {len(values)}", f"one number for each of the {least} tokens")
        try:
            numbers = array(kind, values.tolist() if hasattr(values, "tolist") else values)
        except (TypeError, OverflowError):
            raise self.error(key, "an array of other values", expected) from None
        self._check()
        return numbers


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for a `tokenizer.ggml.model` where the file does not say."""

    bos: int | None = None
    eos: int | None = None
    unknown: int | None = None
    separator: int | None = None
    add_bos: bool = False
    add_eos: bool = False
    add_separator: bool = False
    add_space_prefix: bool = False
    flags_are_fixed: bool = False  # whatever the file says about adding tokens
    pretokenizer: str | None = None  # if the model has one, the name that a file without a name means


_DEFAULTS: Final = {
    "llama": Defaults(bos=1, eos=2, unknown=0, add_bos=True, add_space_prefix=True),
    "gpt2": Defaults(bos=11, eos=11, pretokenizer="default"),
    "gemma4": Defaults(pretokenizer="gemma4"),
    "whitespace": Defaults(bos=11, eos=11, pretokenizer="whitespace"),
    "bert": Defaults(
        bos=101, unknown=100, separator=102, add_bos=True, add_separator=True, flags_are_fixed=True
    ),
    "t5": Defaults(eos=1, unknown=2, add_eos=True),
    "rwkv": Defaults(flags_are_fixed=True),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The small values: names, special ids and flags. Ids that the file does not have are None."""

    fields: Fields
    model: str
    pretokenizer: Pretokenizer | None
    n_tokens: int
    bos: int | None
    eos: int | None
    unknown: int | None
    separator: int | None
    add_bos: bool
    add_eos: bool
    add_separator: bool
    add_space_prefix: bool
    remove_extra_spaces: bool
    lowercase: bool
    strip_accents: bool
    chat_template: str | None
    before: tuple[int, ...] | None  # what stands before a text, in the place of BOS
    after: tuple[int, ...] | None  # what stands after it, in the place of EOS
    between: tuple[int, ...] | None  # what stands between two texts, after the first one's end
    added_tokens: tuple[tuple[int, int], ...] | None  # ids and flags of tokens to look for in texts
    unmerged_tokens: tuple[int, ...]  # those that merging never gives, whatever their texts
    end_tokens: tuple[int, ...]  # those that end generation beside the ones with roles
    normalizers: tuple[str, ...]  # of NORMALIZERS: what is done to a text between two tokens
    space_prefix: str  # of SPACE_PREFIXES: where a space is put before a text
    split_at_spaces: bool  # whether each space begins a word
    max_word_length: int  # characters of a word at most, or it is unknown; of WordPiece

    @classmethod
    def read(cls, fields: Fields) -> Settings:
        """Reads and checks them.

        Raises:
            TokenizerError: a value is missing, of another type, or an id out of range.
            UnsupportedError: the model or the pre-tokenizer is unknown.
        """
        model = fields.text("tokenizer.ggml.model")
        if model not in _DEFAULTS:
            found = "missing" if model is None else brief(model)
            raise fields.unsupported(f"tokenizer.ggml.model is {found}; known are {', '.join(_DEFAULTS)}")
        default = _DEFAULTS[model]
        rules = None
        if default.pretokenizer is not None:
            name = fields.text("tokenizer.ggml.pre") or default.pretokenizer
            rules = pretokenizer.find("gemma4" if model == "gemma4" else name)
            if rules is None:
                known = ", ".join(pretokenizer.names())
                raise fields.unsupported(f"tokenizer.ggml.pre is {brief(name)}; known are {known}")
        tokens = fields.sequence("tokenizer.ggml.tokens")
        if not tokens:
            raise fields.error("tokenizer.ggml.tokens", "missing or empty", "an array of strings")
        n_tokens = len(tokens)

        has_defaults = fields.flag(OWN + "default_token_ids", True)

        def token(key: str, default_id: int | None) -> int | None:
            default_id = default_id if has_defaults else None
            return fields.token(f"tokenizer.ggml.{key}_token_id", n_tokens, default_id)

        def add(kind: str, default_flag: bool) -> bool:
            stored = fields.flag(f"tokenizer.ggml.add_{kind}_token", default_flag)
            return default_flag if default.flags_are_fixed else stored

        add_space_prefix = fields.flag(
            "tokenizer.ggml.add_space_prefix", default.add_space_prefix
        ) and model in ("llama", "t5")
        prefix = fields.choice(OWN + "space_prefix", SPACE_PREFIXES)
        normalizers = tuple(fields.strings(OWN + "normalizers") or ())
        for name in normalizers:
            if name not in NORMALIZERS:
                known = ", ".join(NORMALIZERS)
                raise fields.unsupported(f"{OWN}normalizers holds {brief(name)}; known are {known}")
        before, after = (fields.tokens(f"{OWN}{side}_token_ids", n_tokens) for side in ("before", "after"))
        if before is not None or after is not None:
            before, after = before or (), after or ()
        lowercase = fields.flag("tokenizer.ggml.normalizer.lowercase", rules is None)
        return cls(
            fields=fields,
            model=model,
            pretokenizer=rules,
            n_tokens=n_tokens,
            bos=token("bos", None if rules is not None and not rules.default_bos else default.bos),
            eos=token("eos", default.eos),
            unknown=token("unknown", default.unknown),
            separator=token("seperator", default.separator),
            add_bos=add("bos", rules.add_bos if rules else default.add_bos)
            or bool(rules and rules.always_add_bos),
            add_eos=add("eos", default.add_eos),
            add_separator=default.add_separator,
            add_space_prefix=add_space_prefix,
            remove_extra_spaces=fields.flag("tokenizer.ggml.remove_extra_whitespaces", False),
            lowercase=lowercase,
            strip_accents=fields.flag("tokenizer.ggml.normalizer.strip_accents", lowercase),
            chat_template=fields.text("tokenizer.chat_template"),
            before=before,
            after=after,
            between=fields.tokens(OWN + "between_token_ids", n_tokens),
            added_tokens=_added_tokens(fields, n_tokens),
            unmerged_tokens=fields.tokens(OWN + "unmerged_token_ids", n_tokens) or (),
            end_tokens=fields.tokens(OWN + "end_token_ids", n_tokens) or (),
            normalizers=normalizers,
            space_prefix=prefix or ("always" if add_space_prefix else "never"),
            split_at_spaces=fields.flag(OWN + "split_at_spaces", False),
            max_word_length=fields.count(OWN + "max_word_length", _NOT_SET),
        )

    @property
    def puts_space(self) -> bool:
        """Whether the encoder puts a space before a text."""
        return (
            self.add_space_prefix or self.model == "bert" or (self.model == "t5" and self.remove_extra_spaces)
        )


def _added_tokens(fields: Fields, n_tokens: int) -> tuple[tuple[int, int], ...] | None:
    ids = fields.tokens(OWN + "added_token_ids", n_tokens)
    if ids is None:
        return None
    flags = fields.ints(OWN + "added_token_flags", len(ids))
    return tuple(zip(ids, flags or (0,) * len(ids), strict=False))
