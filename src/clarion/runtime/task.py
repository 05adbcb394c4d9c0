"""A request that the engine works on. The engine's thread owns it, except where a name says otherwise."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, cast

from clarion._native import sampling
from clarion.runtime.filing import Errand
from clarion.runtime.interfaces import SamplerState
from clarion.runtime.request import Generate, Keep, Load, Put, Request, Save, Score
from clarion.runtime.scheduler import Work
from clarion.runtime.speaker import Speech
from clarion.runtime.states.states import SequenceState

if TYPE_CHECKING:
    from clarion.runtime.states.folder import Kept

# Tokens that a text with stop strings is ahead of the speaker at most. When a stop is found, these and the
# token that completed it are taken back: 16, as many as every kind of state takes back exactly.
MOST_UNSPOKEN = 15


class _Task:
    """Tokens to compute, and the state that holds those that are computed."""

    def __init__(self, id: int, request: Request) -> None:
        self.id = id
        self.todo = list(request.tokens)  # not computed yet
        self.n_prompt = len(request.tokens)
        self.is_unwanted = False  # from any thread, under the engine's lock: no step for this one any more
        self.errand: Errand | None = None  # while the state is the disk's
        self.kept: tuple[int, Kept] | None = None  # what the errand reads, and how many tokens it is good for
        self._state: SequenceState | None = None
        self._room = 0  # the state has room up to this length at least

    @property
    def state(self) -> SequenceState:
        """While it runs."""
        assert self._state is not None
        return self._state

    @property
    def is_running(self) -> bool:
        return self._state is not None

    def start(self, state: SequenceState) -> None:
        """It runs, in a state that may hold some of its tokens already."""
        self._state = state
        self._room = state.length
        del self.todo[: state.length]

    def stop(self) -> SequenceState:
        """It runs no more. Its state is somebody else's."""
        state, self._state = self.state, None
        return state

    def restart(self) -> SequenceState:
        """`stop`, and everything is to be computed again."""
        self.todo = self.state.tokens + self.todo
        return self.stop()

    def missing(self, n: int) -> int:
        """The bytes that its next n tokens need, once nothing is retained for others."""
        if self.state.length + n <= self._room:
            return 0
        return self.state.missing(n, alone=True)

    def reserve(self, n: int, grain: int) -> bool:
        """Makes room for its next n tokens. Often there is more then, up to a multiple of `grain`: for the
        tokens that follow, nobody needs to be asked."""
        end = self.state.length + n
        if end <= self._room:
            return True
        if not self.state.reserve(n):
            return False
        whole = end + -end % grain
        self._room = whole if self.state.missing(whole - self.state.length) == 0 else end
        return True

    def mark(self) -> None:
        """Others may begin with what is computed; then they may share its room."""
        self.state.mark()
        self._room = self.state.length

    def advance(self, n: int) -> None:
        """Its next n tokens are computed."""
        self.state.append(self.todo[:n])
        del self.todo[:n]


class Scoring(_Task):
    """Rows of outputs to hand over."""

    def __init__(self, id: int, request: Request, score: Score, put: Put) -> None:
        super().__init__(id, request)
        self.put = put
        self.take = score.take
        self.first = score.first

    @property
    def reusable(self) -> int:
        """How many of its tokens need no row, and so need not be computed."""
        return self.first

    def work(self) -> Work:
        """What it wants to compute next."""
        return Work(len(self.todo), max(self.first - self.state.length, 0), self.missing)


class Writing(_Task):
    """A text to be generated."""

    def __init__(self, id: int, request: Request, generate: Generate, speech: Speech, n_vocab: int) -> None:
        super().__init__(id, request)
        self.speech = speech  # the speaker's
        self.name = generate.name
        self.room = generate.room
        self.logprobs = generate.parameters.logprobs
        self.stop_tokens = generate.stop_tokens
        self.may_stop = bool(generate.stop_strings)  # by a string, which only the speaker sees
        self.is_heard = generate.streams or self.may_stop  # token by token
        self.reports = generate.reports
        self.n_prompt_done = 0
        self.n_written = 0
        self.has_started = False
        self.has_ended = False  # but for the speaker's word
        self.sampler = _sampler(request, generate, n_vocab)

    @property
    def reusable(self) -> int:
        """How many of its tokens need not be computed: the last one's logits are wanted."""
        return len(self.todo) - 1

    def work(self) -> Work:
        """What it wants to compute next."""
        left = len(self.todo)
        if self.has_ended or (self.may_stop and self.n_written - self.speech.n_spoken >= MOST_UNSPOKEN):
            left = 0
        return Work(left, left - 1 if self.room else left, self.missing)

    def take_back(self) -> None:
        """Forgets what was computed after the speaker found a stop string."""
        n = self.speech.stopped_after
        if n is not None:
            # The token that completed the string was drawn, and its state is not needed.
            self.state.truncate(min(self.state.length, self.n_prompt + n - 1))


class Filing(_Task):
    """A state that is written to a file once its tokens are computed, or read from one, and nothing else."""

    def __init__(self, id: int, request: Request, wanted: Save | Load | Keep, put: Put) -> None:
        super().__init__(id, request)
        self.put = put
        self.wanted = wanted
        self.tokens = request.tokens

    @property
    def reusable(self) -> int:
        """How many of its tokens need not be computed: no row of any is wanted."""
        return len(self.todo)

    def work(self) -> Work:
        """What it wants to compute next."""
        return Work(len(self.todo), len(self.todo), self.missing)


Task = Scoring | Writing | Filing


def _sampler(request: Request, generate: Generate, n_vocab: int) -> SamplerState:
    """Draws the text's tokens. It knows the prompt."""
    sampler = cast(
        SamplerState, sampling.SamplerState(n_vocab, generate.parameters.native(generate.breakers))
    )
    sampler.extend(array("i", request.tokens))
    return sampler
