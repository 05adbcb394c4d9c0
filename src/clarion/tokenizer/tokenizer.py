"""Text to ids and back, from the metadata of a GGUF file alone."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NoReturn

from clarion.errors import ParameterError, PicklingError, TokenizerError
from clarion.tokenizer.encoder import Encoder
from clarion.tokenizer.pieces import Pieces
from clarion.tokenizer.settings import Fields, Settings
from clarion.tokenizer.special import Splitter, splitter
from clarion.tokenizer.vocabulary import SPECIAL, Vocabulary


class Tokenizer:
    """A file's tokenizer. It is cheap to make; the vocabulary is read when text or a token is needed.

    Attributes:
        bos, eos: the ids that begin and end a text, or None.
        vocab_size: the number of tokens.
        chat_template: the file's chat template that has no name, or None.

    Threads may share it. The ids are those that llama.cpp gives for the same file and text, unless the file
    has keys of Clarion's own, which say what a checkpoint does otherwise.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.bos: Final = settings.bos
        self.eos: Final = settings.eos
        self.vocab_size: Final = settings.n_tokens
        self.chat_template: Final = settings.chat_template

    @classmethod
    def from_gguf(cls, path: str | os.PathLike[str]) -> Tokenizer:
        """The tokenizer of a file, which may hold nothing but a vocabulary.

        Raises:
            FileError: the file cannot be read or breaks the format's rules.
            TokenizerError, UnsupportedError: as `from_metadata`.
        """
        from clarion.gguf import File
        from clarion.library import located

        file = File.open(located(path))
        return cls(Settings.read(Fields(file.metadata, f"{os.fspath(path)}: ", file.check)))

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Tokenizer:
        """The tokenizer that a file's key-value pairs describe. They must stay readable.

        Raises:
            TokenizerError: a value is missing, of the wrong type or out of range. For what is read only when
                it is needed, the methods raise it.
            UnsupportedError: the kind of tokenizer, or its pre-tokenizer, is unknown.
        """
        return cls(Settings.read(Fields(metadata)))

    def __repr__(self) -> str:
        return f"<Tokenizer: {self.vocab_size} tokens>"

    def __copy__(self) -> Tokenizer:
        return self

    def __deepcopy__(self, _: object) -> Tokenizer:
        """Nothing in it changes."""
        return self

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise PicklingError(
            "a tokenizer cannot be pickled: pass on the path of its file, and use Tokenizer.from_gguf there"
        )

    def encode(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """The ids of a text.

        Args:
            text: any text.
            add_special: put the tokens around it that the file asks for (BOS, EOS, separator).
            parse_special: read the texts of control tokens as these tokens. User-defined tokens always are.

        Raises:
            TokenizerError: the text holds half a surrogate pair, the vocabulary cannot express it, or the
                file asks for a token that it does not have.
            ParameterError: it is no text.
        """
        if not isinstance(text, str):
            raise ParameterError(f"text: found {text!r:.80}, expected a text")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError(f"character {error.start} of the text is half a surrogate pair") from None
        tokens = list(self.before) if add_special else []
        after_special = True
        only_first = self._settings.space_prefix == "first"
        for part in self._special_tokens.split(text, parse_special):
            if isinstance(part, int):
                tokens.append(part)
            else:
                tokens += self._encoder.encode(part, after_special)
            after_special = isinstance(part, int) and not only_first
        return [*tokens, *self.after] if add_special else tokens

    def control_tokens(self, text: str) -> list[str]:
        """The names of control tokens that a text holds, each once, in their order.

        They are characters to `encode`, unless it is told to `parse_special`.
        """
        found = [part for part in self._special_tokens.split(text, True) if isinstance(part, int)]
        return list(
            dict.fromkeys(
                self.piece(token).decode("utf-8", "replace") for token in found if self.is_special(token)
            )
        )

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of ids: the inverse of `encode`. Bytes that are no UTF-8 become U+FFFD.

        The space that `encode` puts before a text is removed. In the continuation of a text, a space at the
        start is part of it: decode that with `stream`.

        Args:
            ids: tokens.
            skip_special: leave control and unknown tokens out.

        Raises:
            TokenizerError: an id is not in the vocabulary.
        """
        data = bytearray()
        at_start = self._settings.puts_space
        for token in ids:
            piece = self.piece(token)
            if not self.is_special(token):
                if at_start and piece[:1] == b" ":
                    piece = piece[1:]
                at_start = False
            elif skip_special:
                continue
            data += piece
        return data.decode("utf-8", "replace")

    def stream(self, skip_special: bool = False) -> Stream:
        """A decoder for ids that come one by one; `skip_special` as in `decode`."""
        return Stream(self, skip_special)

    def piece(self, token: int) -> bytes:
        """The bytes of a token.

        Raises:
            TokenizerError: the id is not in the vocabulary.
        """
        if not 0 <= token < self.vocab_size:
            raise TokenizerError(f"token {token} is not in the vocabulary of {self.vocab_size}")
        return self.pieces[token]

    def is_special(self, token: int) -> bool:
        """Whether a token of the vocabulary is one for control, or the unknown one: no text of its own."""
        return bool(self._vocabulary.attributes[token] & SPECIAL)

    @cached_property
    def pieces(self) -> Sequence[bytes]:
        """The bytes of every token."""
        return Pieces(self._vocabulary, self._settings)

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """The tokens that end generation: of a text, of a turn, of a message."""
        return self._vocabulary.end_tokens

    @property
    def before(self) -> Sequence[int]:
        """The tokens that `encode` puts before a text.

        Raises:
            TokenizerError: the file asks for a token that it does not have.
        """
        if self._settings.before is not None:
            return self._settings.before
        if not self._settings.add_bos:
            return ()
        return (_required(self._settings.bos, "add_bos_token", "bos_token_id"),)

    @property
    def after(self) -> Sequence[int]:
        """The tokens that `encode` puts after a text.

        Raises:
            TokenizerError: the file asks for a token that it does not have.
        """
        settings = self._settings
        if settings.after is not None:
            return settings.after
        after = []
        if settings.add_eos:
            after.append(_required(settings.eos, "add_eos_token", "eos_token_id"))
        if settings.add_separator:
            after.append(_required(settings.separator, "model", "seperator_token_id"))
        return after

    @property
    def between(self) -> Sequence[int]:
        """What stands between two texts that are judged together, beside what ends the first."""
        if self._settings.between is not None:
            return self._settings.between
        eos = self._settings.eos
        return (eos,) if self._settings.model == "t5" and eos is not None else ()

    @cached_property
    def chat_templates(self) -> Mapping[str, str]:
        """The file's chat templates by name; that without a name is "default".

        Raises:
            TokenizerError: one is no string.
        """
        return self._settings.fields.named_texts("tokenizer.chat_template", "default")

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self._settings)

    @cached_property
    def _special_tokens(self) -> Splitter:
        return splitter(self._vocabulary, self._settings)

    @cached_property
    def _encoder(self) -> Encoder:
        return _make_encoder(self._vocabulary, self._settings)


class Stream:
    """Decodes ids one by one and holds back the bytes of a character until it is whole."""

    def __init__(self, tokenizer: Tokenizer, skip_special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """The text that this token completes; often one word, sometimes nothing.

        Raises:
            TokenizerError: the id is not in the vocabulary.
        """
        piece = self._tokenizer.piece(token)
        if self._skip_special and self._tokenizer.is_special(token):
            return ""
        return self._decoder.decode(piece)

    def finish(self) -> str:
        """What is left: U+FFFD if the last character stayed incomplete. The stream can be used anew."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def _required(token: int | None, wish: str, key: str) -> int:
    if token is None:
        raise TokenizerError(
            f"tokenizer.ggml.{wish} asks for a token that tokenizer.ggml.{key} does not name"
        )
    return token


def _make_encoder(vocabulary: Vocabulary, settings: Settings) -> Encoder:
    """Imports only what the model needs."""
    if settings.pretokenizer is not None:
        from clarion.tokenizer.bpe import RankedMerges

        return RankedMerges(vocabulary, settings, settings.pretokenizer)
    if settings.model == "llama":
        from clarion.tokenizer.spm import ScoredMerges

        return ScoredMerges(vocabulary, settings)
    if settings.model == "bert":
        from clarion.tokenizer.wordpiece import LongestPieces

        return LongestPieces(vocabulary, settings)
    if settings.model == "t5":
        from clarion.tokenizer.unigram import BestSegmentation

        return BestSegmentation(vocabulary, settings)
    from clarion.tokenizer.rwkv import LongestBytes

    return LongestBytes(vocabulary, settings)
