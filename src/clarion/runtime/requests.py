"""From what a caller gives, a prompt and options, to what the engine is asked: all of it checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from clarion.errors import ClarionError, ContextError, ParameterError
from clarion.plan.program import Program
from clarion.runtime.prompts import Prompt, check_ids, look
from clarion.runtime.request import Generate, Request
from clarion.runtime.sampling import GREATEST_LOGPROBS, Options, Parameters, integer, random_seed
from clarion.runtime.scoring import Scores
from clarion.runtime.streams import Hear, Progress, hears

if TYPE_CHECKING:
    from clarion.tokenizer import Tokenizer

# Lists of `dry_breakers` whose tokens a model remembers; those of other lists are looked up again.
MOST_BREAKERS = 16


class Breakers:
    """The tokens that stand for `dry_breakers`, of the lists that were asked for before."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, ...], list[int]] = {}

    def tokens(self, strings: tuple[str, ...], tokenizer: Tokenizer) -> list[int]:
        """Tokens whose text contains one of the strings."""
        found = self.known.get(strings)
        if found is None:
            wanted = [string.encode() for string in strings]
            found = [
                token
                for token, piece in enumerate(tokenizer.pieces)
                if any(string in piece for string in wanted)
            ]
            if len(self.known) >= MOST_BREAKERS:
                self.known.clear()
            self.known[strings] = found
        return found


class Requests:
    """Makes a model's requests. Any thread may use it."""

    def __init__(
        self,
        program: Program,
        breakers: Breakers,
        tokenizer: Callable[[], Tokenizer],
        tokenize: Callable[[str], list[int]],
    ) -> None:
        """`tokenizer` gives the model's, `tokenize` the token ids of a prompt."""
        self._program = program
        self._breakers = breakers
        self._tokenizer = tokenizer
        self._tokenize = tokenize

    def generation(
        self,
        prompt: Prompt | Callable[[], list[int]],
        options: Options,
        *,
        streams: bool = False,
        reports: bool = False,
    ) -> Request:
        """The request of one prompt, or of what makes its token ids."""
        parameters = self._parameters(options)
        ids = prompt() if callable(prompt) else self._ids(prompt)
        ids = self._fitting(ids, parameters)
        return self._request(ids, parameters, streams=streams, reports=reports)

    def generations(
        self, prompts: Sequence[Prompt], options: Options, progress: Progress | None
    ) -> tuple[Iterator[Request], Hear | None]:
        """The requests of several prompts, all of which are checked first, and what hears of them."""
        parameters = self._parameters(options)
        all_ids = []
        for i, prompt in enumerate(prompts):
            try:
                all_ids.append(self._fitting(self._ids(prompt), parameters))
            except ClarionError as error:
                raise type(error)(f"prompt {i}: {str(error).removeprefix('prompt: ')}") from error
        done = [0] * len(all_ids)
        total = sum(map(len, all_ids))

        def hear(number: int, n_done: int, _: int) -> None:
            assert progress is not None
            done[number] = n_done
            progress(sum(done), total)

        def request(number: int) -> Request:
            own = parameters if options.get("seed") is not None else replace(parameters, seed=random_seed())
            return self._request(all_ids[number], own, reports=hears(progress), name=f"prompt {number}: ")

        return map(request, range(len(all_ids))), hear if hears(progress) else None

    def check_text(self, tokens: Iterable[int]) -> list[int]:
        """Token ids that are no more than the context holds; ContextError if they are."""
        ids = check_ids(tokens, self._program.n_vocab)
        if len(ids) > self._program.context:
            raise ContextError(self._too_long(f"{len(ids)} tokens are more than the context of"))
        return ids

    def scores(self, tokens: Iterable[int], first: int, top: int) -> Scores:
        """What asks for the log-probabilities of tokens."""
        ids = self.check_text(tokens)
        first = integer("first", first, 1, max(1, len(ids)))
        return Scores(ids, first, integer("top", top, 0, GREATEST_LOGPROBS))

    def _request(
        self,
        ids: list[int],
        parameters: Parameters,
        *,
        streams: bool = False,
        reports: bool = False,
        name: str = "",
    ) -> Request:
        room = self._program.context - len(ids)
        if parameters.max_tokens is not None:
            room = min(room, parameters.max_tokens)
        breakers: list[int] = []
        if parameters.dry_multiplier:
            breakers = self._breakers.tokens(parameters.dry_breakers, self._tokenizer())
        generate = Generate(
            parameters,
            room=room,
            end_tokens=frozenset() if parameters.ignore_eos else self._tokenizer().end_tokens,
            breakers=tuple(breakers),
            detokenizer=self._tokenizer() if parameters.detokenize else None,
            streams=streams,
            reports=reports,
            name=name,
        )
        return Request(tuple(ids), generate)

    def _parameters(self, options: Options) -> Parameters:
        parameters = Parameters.parse(options)
        parameters.check_tokens(self._program.n_vocab)
        return parameters

    def _ids(self, prompt: Prompt) -> list[int]:
        found, several = look(prompt)
        if several:
            raise ParameterError(f"prompt: found {len(found)} prompts, expected a text or token ids")
        return self._tokenize(found) if isinstance(found, str) else check_ids(found, self._program.n_vocab)

    def _fitting(self, ids: list[int], parameters: Parameters) -> list[int]:
        """The tokens of a prompt, which leave room for one more in the context, unless none is wanted."""
        if not ids:
            raise ParameterError("prompt: found no tokens, expected at least one")
        if len(ids) + (parameters.max_tokens != 0) > self._program.context:
            raise ContextError(
                self._too_long(f"the prompt of {len(ids)} tokens leaves no room in the context of")
            )
        return ids

    def _too_long(self, what: str) -> str:
        """The message of a ContextError, with what to do in Python and on the command line."""
        made_for = self._program.hyperparameters.context_length
        return (
            f"{what} {self._program.context}; the model was made for {made_for}: "
            f"load it with a longer context (context= in Python, -c on the command line)"
        )
