"""What a text becomes in a chat: reasoning and content, with their log-probabilities and their tokens.

Here is the seam for calls of tools: a reader of them is to stand where `_take` sees the parts of a text.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from clarion.conversation.reasoning import Markers, Part, Splitter
from clarion.runtime.completion import Completion, TokenLogprob
from clarion.runtime.pieces import Piece


@dataclass(frozen=True, slots=True)
class Said:
    """What a piece of the text adds to the answer."""

    reasoning: str = ""
    content: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()  # of the content's tokens

    def __bool__(self) -> bool:
        return bool(self.reasoning or self.content)


@dataclass
class Answer:
    """One answer, as far as it has come. The sum of what `feed` and `end` give is the answer.

    Attributes:
        reasoning, content: all of it.
        logprobs: of the content's tokens.
        n_reasoning: tokens of reasoning, with the mark that opens it.
        completion: how the text ended.
    """

    markers: Markers | None
    begins_inside: bool
    reasoning: str = ""
    content: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    n_reasoning: int = 0
    completion: Completion | None = None
    _held: list[TokenLogprob] = field(default_factory=list)  # of tokens whose text is held back

    def __post_init__(self) -> None:
        self._splitter = Splitter(self.markers, begins_inside=self.begins_inside)

    def feed(self, piece: Piece) -> Said:
        """What the next piece adds; nothing where its text may begin a mark."""
        parts = self._splitter.feed(piece)
        inside = self._splitter.is_inside
        if inside:
            self.n_reasoning += len(piece.tokens)
        elif piece.logprobs:
            self._held += piece.logprobs
        return self._take(parts)

    def end(self, completion: Completion) -> Said:
        """The text has ended: what was held back."""
        self.completion = completion
        return self._take(self._splitter.finish())

    def _take(self, parts: list[Part]) -> Said:
        if not parts:
            return Said()
        reasoning = "".join(part.text for part in parts if part.kind == "reasoning")
        content = "".join(part.text for part in parts if part.kind != "reasoning")
        logprobs: tuple[TokenLogprob, ...] = ()
        if content and self._held:
            logprobs = tuple(self._held)
            self._held.clear()
            self.logprobs += logprobs
        self.reasoning += reasoning
        self.content += content
        return Said(reasoning, content, logprobs)

    @property
    def finish_reason(self) -> str:
        """Why the text ended, in OpenAI's words."""
        assert self.completion is not None
        return "length" if self.completion.finish_reason == "length" else "stop"
