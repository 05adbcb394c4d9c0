"""Vectors and scores of whole texts: as many texts as fit share a batch, whatever their lengths.

Texts stand one behind the other; none is padded. A model that reads in both directions sees all of a text in
one batch. One that reads forwards alone computes a long text in pieces, as it does a prompt, so that no run
takes long.

One thread of the embedder computes; callers wait, so that an interrupt reaches them at once. They take turns,
batch by batch.
"""

from __future__ import annotations

import os
import threading
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING

from clarion.errors import ClosedError
from clarion.exiting import Background, loading, wait_for_the_end
from clarion.host.hierarchy import Node
from clarion.host.numa import stay_near
from clarion.plan.output import Output, Pooled, Ranks
from clarion.runtime.executor import Executor
from clarion.runtime.states.states import SequenceState

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

Texts = Sequence[Sequence[int]]
_CANCEL_AGAIN = 0.05  # seconds: a run that began just after it was cancelled is cancelled once more


class _Job:
    """The texts of one caller, and how far they are."""

    def __init__(self, texts: Texts, found: Floats) -> None:
        self.texts = texts
        self.found = found  # [len(texts), width]
        self.n_done = 0
        self.state: SequenceState | None = None  # of a long text that is computed in pieces
        self.is_unwanted = False
        self.end: SimpleQueue[Exception | None] = SimpleQueue()


class _Batch:
    """What is computed in one run: of texts, or a piece of one."""

    def __init__(self) -> None:
        self.tokens, self.positions, self.slots, self.outputs = (array("i") for _ in range(4))
        self.states: list[SequenceState] = []

    def add(self, state: SequenceState, tokens: Sequence[int]) -> None:
        """The state's next tokens."""
        self.positions.extend(range(state.length, state.length + len(tokens)))
        self.tokens.extend(tokens)
        self.slots.extend([state.slot] * len(tokens))


class Embedder:
    """Computes the rows of texts on one executor, for any number of threads."""

    def __init__(
        self, executor: Executor, batch: int, check: Callable[[], None], node: Node | None = None
    ) -> None:
        """
        Args:
            batch: tokens computed at once, as far as texts are not longer, or can be computed in pieces.
            check: raises where results are worthless.
            node: where the thread that computes stays.
        """
        self._executor = executor
        self._states = executor.memory.states()
        self._batch = min(batch, executor.program.max_tokens)
        self._check_file = check
        self._node = node
        (self._output,) = executor.program.outputs
        # Guards the rest. Reentrant: wherever a thread is, it may collect a forgotten model, which closes.
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._jobs: deque[_Job] = deque()  # whose turn is next stands first
        self._running: _Job | None = None
        self._closing = False
        self._exiting = False
        self._thread: Background | None = None
        self._process = os.getpid()

    @property
    def output(self) -> Output:
        """What a row is."""
        return self._output

    @property
    def context(self) -> int:
        """Tokens of a text at most."""
        return self._executor.program.context

    # ---- from any thread ----------------------------------------------------------------------------------

    def rows(self, texts: Texts) -> Floats:
        """A row for each text: [len(texts), width]. No text is empty, or longer than the context.

        Whatever interrupts the wait ends the computation.

        Raises:
            ClosedError: after `close`, or in a forked process.
        """
        import numpy as np

        self._check_process()
        width = self._executor.array(self._output.value).shape[1]
        job = _Job(texts, np.empty((len(texts), width), np.float32))
        try:
            self._submit(job)
            error = job.end.get()
        except BaseException:
            self._leave(job)
            raise
        if error is not None:
            raise error
        return job.found

    def close(self) -> None:
        """Ends the batch that runs; whoever waits for it gets a ClosedError."""
        if os.getpid() != self._process:
            return
        with self._wake:
            self._closing = True
            self._wake.notify_all()
            thread = self._thread
        if thread is None or self.is_here():
            return
        while not thread.is_over:
            self._executor.cancel()
            thread.join(_CANCEL_AGAIN)
        thread.join()

    def exit(self) -> None:
        """Before `close`, when the interpreter exits: who still waits is a daemon thread, and is left
        waiting."""
        self._exiting = True

    def is_here(self) -> bool:
        """Whether the thread that computes asks."""
        return threading.current_thread() is self._thread

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise ClosedError("the model was loaded by another process; load it again after a fork")

    def _submit(self, job: _Job) -> None:
        with loading, self._wake:
            if not self._closing:
                self._start()
                self._jobs.append(job)
                self._wake.notify_all()
                return
        if self._exiting:
            wait_for_the_end()
        raise ClosedError("the model is closed")

    def _start(self) -> None:
        """Starts the thread, once. Whoever closes knows it before it runs."""
        if self._thread is not None:
            return
        thread = self._thread = Background(self._loop, name="clarion-embedder")
        try:
            thread.start()
        except BaseException:
            if thread.never_begins:
                self._thread = None
            raise

    def _leave(self, job: _Job) -> None:
        """Nobody waits for it any more."""
        with self._wake:
            job.is_unwanted = True
            if self._running is job:
                self._executor.cancel()
            self._wake.notify_all()

    # ---- the thread that computes -------------------------------------------------------------------------

    def _loop(self) -> None:
        if self._node is not None:
            stay_near(self._node)
        while (job := self._next()) is not None:
            try:
                self._advance(job)
            except Exception as error:  # the caller's to hear of
                self._drop(job, error)
        with self._lock:
            left, self._jobs = self._jobs, deque()
        for job in left:
            if not self._exiting:
                job.end.put(ClosedError("the model was closed"))

    def _next(self) -> _Job | None:
        """Whose turn it is; None when the embedder closes."""
        with self._wake:
            self._running = None
            while not (self._jobs or self._closing):
                self._wake.wait()
            if self._closing:
                return None
            self._jobs.rotate(-1)
            job = self._running = self._jobs[-1]
            return job

    def _drop(self, job: _Job, error: Exception | None) -> None:
        """Its computation is over."""
        if job.state is not None:
            job.state.release()
            job.state = None
        with self._lock:
            self._jobs.remove(job)
        job.end.put(error)

    def _advance(self, job: _Job) -> None:
        """Computes a batch of the job's texts, or the next piece of a long one."""
        if job.is_unwanted or job.n_done == len(job.texts):
            self._drop(job, None)
            return
        batch = _Batch()
        try:
            n_ended = self._fill(batch, job)
            if not batch.tokens:  # another job's long text has the room
                return
            if not self._run(batch):
                return
            if job.state is not None:
                job.state.append(batch.tokens)
                if n_ended:
                    job.state.release()
                    job.state = None
            job.found[job.n_done : job.n_done + n_ended] = self._executor.array(self._output.value)[:n_ended]
            job.n_done += n_ended
        finally:
            for state in batch.states:
                state.release()
        self._check_file()
        if job.n_done == len(job.texts):
            self._drop(job, None)

    def _run(self, batch: _Batch) -> bool:
        """False where it was cancelled: whoever is left computes it again."""
        tables = self._states.tables
        values = (batch.tokens, batch.positions, batch.slots)
        return self._executor.run(*values, tables, batch.outputs) is not None

    def _fill(self, batch: _Batch, job: _Job) -> int:
        """Puts what is next of a job into an empty batch. Returns how many texts end with it."""
        program = self._executor.program
        text = job.texts[job.n_done]
        if len(text) > program.max_tokens:
            return self._fill_piece(batch, job, text)
        first = isinstance(self._output, Pooled | Ranks) and self._output.how == "cls"
        for text in job.texts[job.n_done : job.n_done + program.max_outputs]:
            n = len(batch.tokens)
            if n and n + len(text) > self._batch:
                break
            state = self._open(len(text))
            if state is None:
                break
            batch.states.append(state)
            batch.add(state, text)
            batch.outputs.append(n if first else len(batch.tokens) - 1)
        return len(batch.states)

    def _fill_piece(self, batch: _Batch, job: _Job, text: Sequence[int]) -> int:
        if job.state is None:
            if any(other.state is not None for other in self._jobs):  # one at a time: states have room for it
                return 0
            job.state = self._open(0)
            if job.state is None:
                return 0
        state = job.state
        piece = text[state.length : state.length + self._batch]
        has_room = state.reserve(len(piece))
        assert has_room, "the states have room for one long text beside a batch"
        batch.add(state, piece)
        if state.length + len(piece) < len(text):
            return 0
        batch.outputs.append(len(piece) - 1)
        return 1

    def _open(self, n: int) -> SequenceState | None:
        """A state with room for n tokens; None where there is none now."""
        state = self._states.open((), reuse=False)
        if state is not None and not state.reserve(n):
            state.release()
            return None
        return state
