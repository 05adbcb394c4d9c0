"""`t5`: SentencePiece's unigram model, the segmentation with the highest sum of scores."""

from __future__ import annotations

import math
import re
import struct
from collections import defaultdict

from clarion.errors import TokenizerError
from clarion.tokenizer.encoder import WordCache
from clarion.tokenizer.settings import Fields, Settings, brief
from clarion.tokenizer.vocabulary import NORMAL, SPACE, UNUSED, USER_DEFINED, Vocabulary

_UNKNOWN_PENALTY = 10.0
_SPACE = SPACE.encode()
_WORD = re.compile(b"(?:%b)*(?:(?!%b).)+|(?:%b)+" % (_SPACE, _SPACE, _SPACE), re.DOTALL)
_REPLACEMENT = "\ufffd".encode()


class CharacterMap:
    """SentencePiece's precompiled normalisation: a double-array trie from prefixes to their replacements.

    A node packs its label (bits 0-7), whether a value follows (bit 8) and the distance to its children (bits
    10-30, times 256 if bit 9 is set). A value node holds the offset of a NUL-terminated replacement.
    Kanda et al., "Space- and time-efficient string dictionaries" (2018).
    """

    def __init__(self, fields: Fields, key: str, data: bytes) -> None:
        if len(data) < 4:
            raise fields.error(key, f"{len(data)} bytes", "at least 4")
        size = int.from_bytes(data[:4], "little")
        if size % 4 or 4 + size >= len(data):
            raise fields.error(key, f"a trie of {size} in {len(data)} bytes", "a multiple of 4 that fits")
        self._nodes = struct.unpack(f"<{size // 4}I", data[4 : 4 + size])
        self._replacements = data[4 + size :]
        self._error = fields.error(key, "a trie that points past its end", "a valid map")

    def longest(self, text: bytes, begin: int) -> tuple[int, bytes] | None:
        """Length of the longest prefix of `text[begin:]` in the map, and what replaces it."""
        nodes = self._nodes
        if not nodes:
            return None
        found = None
        try:
            index = _children(nodes[0])
            for position in range(begin, len(text)):
                byte = text[position]
                index ^= byte
                if not byte or nodes[index] & 0x800000FF != byte:
                    break
                node = nodes[index]
                index ^= _children(node)
                if node & 0x100:
                    found = position + 1 - begin, nodes[index] & 0x7FFFFFFF
            if found is None:
                return None
            length, start = found
            return length, self._replacements[start : self._replacements.index(0, start)]
        except (IndexError, ValueError):
            raise self._error from None


def _children(node: int) -> int:
    return (node >> 10) << ((node & 0x200) >> 6)


class BestSegmentation:
    """Normalises the text, then finds the best segmentation of each word (Viterbi).

    A character that is no token is unknown, at a score below that of every token; unknown neighbours make one
    token. Unless a token has a space after another character, none crosses the border before a run of spaces,
    and each word can be segmented on its own.
    """

    def __init__(self, vocabulary: Vocabulary, settings: Settings) -> None:
        self._settings = settings
        self._unknown = settings.unknown
        self._map = _read_map(settings.fields)
        self._ids: dict[bytes, int] = {}
        self._scores: dict[int, float] = {}
        self._user_prefixes: set[bytes] = set()
        lengths: defaultdict[bytes, set[int]] = defaultdict(set)
        least = 0.0
        for token, (text, bits) in enumerate(zip(vocabulary.texts, vocabulary.file_attributes, strict=True)):
            if not bits & (NORMAL | USER_DEFINED | UNUSED):
                continue
            piece = text.encode("utf-8", "surrogateescape")
            self._ids[piece] = token
            lengths[piece[:2]].add(len(piece))
            if bits & USER_DEFINED:
                self._scores[token] = 0.0
                self._user_prefixes.update(piece[:end] for end in range(1, len(piece) + 1))
            else:
                self._scores[token] = vocabulary.scores[token]
            if bits & NORMAL:
                least = min(least, vocabulary.scores[token])
        self._lengths = {start: sorted(found) for start, found in lengths.items()}
        self._unknown_score = struct.unpack("f", struct.pack("f", least - _UNKNOWN_PENALTY))[0]
        self._one_word = any(SPACE in text.lstrip(SPACE) for text in vocabulary.texts)
        self._encode_word = WordCache(self._segment)

    def encode(self, text: str, after_special: bool) -> list[int]:
        data = self._normalize(text.encode())
        words = [data] if self._one_word else _WORD.findall(data)
        tokens: list[int] = []
        for word in words:
            for token in self._encode_word(word):
                if token != self._unknown or not tokens or tokens[-1] != token:
                    tokens.append(token)
        return tokens

    def _normalize(self, data: bytes) -> bytes:
        parts = []
        begin = 0
        while begin < len(data):
            end = begin
            while data[begin : end + 1] in self._user_prefixes and end < len(data):
                end += 1
            if end == begin:
                replaced = self._map.longest(data, begin) if self._map else None
                length, part = replaced or _character(data, begin)
                end = begin + length
            else:
                part = data[begin:end]
            parts.append(part)
            begin = end
        data = b"".join(parts)
        if self._settings.remove_extra_spaces:
            return b"".join(_SPACE + word for word in data.split(b" ") if word)
        first = len(data) - len(data.lstrip(b" "))
        if self._settings.add_space_prefix and first < len(data):
            data = data[:first] + b" " + data[first:]
        return data.replace(b" ", _SPACE)

    def _segment(self, word: bytes) -> list[int]:
        length = len(word)
        scores = [-math.inf] * (length + 1)
        scores[0] = 0.0
        origins = [(0, self._unknown)] * (length + 1)
        begin = 0
        while begin < length:
            score = scores[begin]
            step = min(_utf8_length(word[begin]), length - begin)
            is_known = False
            for size in (1, *self._lengths.get(word[begin : begin + 2], ())):
                end = begin + size
                token = self._ids.get(word[begin:end])
                if token is None or end > length:
                    continue
                is_known |= size == step
                if score + self._scores[token] > scores[end]:
                    scores[end] = score + self._scores[token]
                    origins[end] = begin, token
            if not is_known and score + self._unknown_score > scores[begin + step]:
                scores[begin + step] = score + self._unknown_score
                origins[begin + step] = begin, self._unknown
            begin += step
        tokens = []
        end = length
        while end:
            end, token = origins[end]
            if token is None:
                raise TokenizerError(f"the vocabulary has no tokens for {brief(word)} and no unknown token")
            tokens.append(token)
        return tokens[::-1]


def _read_map(fields: Fields) -> CharacterMap | None:
    key = "tokenizer.ggml.precompiled_charsmap"
    values = fields.ints(key, 0)
    if values is None:
        return None
    return CharacterMap(fields, key, bytes(value & 0xFF for value in values))


def _character(data: bytes, begin: int) -> tuple[int, bytes]:
    """Length and bytes of the character; a byte that begins none becomes U+FFFD."""
    length = _utf8_length(data[begin])
    character = data[begin : begin + length]
    try:
        character.decode()
    except UnicodeDecodeError:
        return 1, _REPLACEMENT
    return length, character


def _utf8_length(byte: int) -> int:
    return 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
