"""`bert`: WordPiece, the longest token first, within words that begin with U+2581."""

from __future__ import annotations

import unicodedata

from clarion.errors import TokenizerError
from clarion.tokenizer import characters
from clarion.tokenizer.encoder import WordCache
from clarion.tokenizer.settings import Settings, brief
from clarion.tokenizer.vocabulary import SPACE, Vocabulary

# Characters that are words of their own, first and last. U+2B820..U+2B91F are missing in the reference, too.
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class LongestPieces:
    """Normalises the text, cuts it at white space, punctuation and ideographs, and spells each word."""

    def __init__(self, vocabulary: Vocabulary, settings: Settings) -> None:
        self._ids = vocabulary.ids
        self._unknown = settings.unknown
        self._lowercase = settings.lowercase
        self._strip_accents = settings.strip_accents
        self._longest = max(map(len, vocabulary.texts))
        self._longest_word = settings.max_word_length
        self._encode_word = WordCache(self._spell)

    def encode(self, text: str, after_special: bool) -> list[int]:
        return [token for word in self._words(text) for token in self._encode_word(word)]

    def _words(self, text: str) -> list[str]:
        classes = characters.classes()
        spaced = []
        if self._strip_accents:
            text = unicodedata.normalize("NFD", text)  # a letter, then its accents
        for character in text:
            kind = classes[ord(character)]
            if kind in characters.ASCII_SPACES:
                spaced.append(" ")
                continue
            if (
                _is_control(kind)
                or character == "\ufffd"
                or (self._strip_accents and kind == characters.MARK)
            ):
                continue
            alone = _stands_alone(character, kind)
            if self._lowercase:
                character = characters.lower(character)
            spaced.append(f" {character} " if alone else character)
        return "".join(spaced).split(" ")

    def _spell(self, word: str) -> list[int]:
        if not word:
            return []
        if len(word) > self._longest_word and self._unknown is not None:
            return [self._unknown]
        word = SPACE + word
        tokens = []
        begin = 0
        while begin < len(word):
            for end in range(min(len(word), begin + self._longest), begin, -1):
                token = self._ids.get(word[begin:end])
                if token is not None:
                    tokens.append(token)
                    begin = end
                    break
            else:
                if self._unknown is None:
                    raise TokenizerError(
                        f"the vocabulary has no tokens for {brief(word[1:])} and no unknown token"
                    )
                return [self._unknown]
        return tokens


def _is_control(kind: str) -> bool:
    return kind == characters.CONTROL or kind < " " or kind == "\x7f"


def _stands_alone(character: str, kind: str) -> bool:
    if kind < "\x80":
        return not kind.isalnum()
    return kind == characters.PUNCTUATION or any(
        first <= ord(character) <= last for first, last in _IDEOGRAPHS
    )
