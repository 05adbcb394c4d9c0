"""Log-probabilities in OpenAI's two forms."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Final

from clarion.runtime.completion import TokenLogprob
from clarion.server.openai.types import ChatLogprobs, TextLogprobs, TokenLogprobs, TopLogprob
from clarion.tokenizer import Tokenizer

_LEAST: Final = -9999.0  # JSON has no infinity; OpenAI writes this


def of_chat(tokenizer: Tokenizer, found: Iterable[TokenLogprob]) -> ChatLogprobs:
    """As chats have them: an object for each token."""
    return ChatLogprobs([_token(tokenizer, each) for each in found])


def _token(tokenizer: Tokenizer, each: TokenLogprob) -> TokenLogprobs:
    piece = tokenizer.piece(each.token)
    top = [
        TopLogprob(_text(other), max(logprob, _LEAST), list(other))
        for other, logprob in ((tokenizer.piece(token), logprob) for token, logprob in each.top)
    ]
    return TokenLogprobs(_text(piece), max(each.logprob, _LEAST), list(piece), top)


class TextTokens:
    """As completions have them: lists side by side, with the place of each token in the text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0  # characters of the text so far

    def of(self, found: Iterable[TokenLogprob | int]) -> TextLogprobs:
        """The next tokens; of a number nothing is known but the token."""
        made = TextLogprobs([], [], [], [])
        for each in found:
            token = each if isinstance(each, int) else each.token
            piece = self._tokenizer.piece(token)
            text = _text(piece)
            made.tokens.append(text)
            made.text_offset.append(self._offset)
            self._offset += len(self._decoder.decode(piece))
            if isinstance(each, int):
                made.token_logprobs.append(None)
                made.top_logprobs.append(None)
                continue
            made.token_logprobs.append(max(each.logprob, _LEAST))
            # Different tokens may have one text, as halves of characters do: the most probable one stays.
            top = {text: max(each.logprob, _LEAST)}
            for other, logprob in each.top:
                top.setdefault(_text(self._tokenizer.piece(other)), max(logprob, _LEAST))
            made.top_logprobs.append(top)
        return made


def _text(piece: bytes) -> str:
    """A token's text; of half a character, as OpenAI writes it: `bytes:\\xe2\\x82`."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)
