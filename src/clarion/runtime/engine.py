"""Continuous batching: one thread that runs whatever is to be run, step by step.

Who owns what. The engine's thread owns the program, the KV cache, the pages, the sequences and the sampler;
nobody else touches them. Other threads own nothing but the way in: `submit` appends to the arrivals, `cancel`
marks a job, `close` ends the thread, all three under the lock. Results leave through each job's `put`.

A step takes the next token of every text being generated and fills the batch with pieces of prompts. Since
a result does not depend on the batch it was computed in, who shares a step with whom is a question of speed.

When the pages run out, the finished sequences that are kept for their prefixes go first, the oldest first;
then the job that came last gives its pages back and waits to be computed again. The first always fits.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from itertools import chain

import numpy as np

from clarion.errors import ClosedError
from clarion.exiting import Background, wait_for_the_end
from clarion.host.hierarchy import Node
from clarion.host.numa import stay_near
from clarion.runtime.core import PAGE_SIZE, KvCache, Program, Sampler
from clarion.runtime.jobs import Job, Result
from clarion.runtime.pages import PagePool
from clarion.runtime.sequence import Sequence

# A shorter common prefix costs more to share (a page is copied in every layer) than to compute again.
SHORTEST_REUSE = 16


class Engine:
    """Runs jobs on one program until it is closed."""

    def __init__(
        self,
        program: Program,
        cache: KvCache,
        sampler: Sampler,
        *,
        n_pages: int,
        context: int,
        max_tokens: int,
        max_outputs: int,
        check: Callable[[], None],
        node: Node | None = None,
    ) -> None:
        """`n_pages` hold at least `context` tokens; `check` raises where results are worthless; `node`
        is where the program's first thread, the engine's, stays."""
        self._program = program
        self._cache = cache
        self._sampler = sampler
        self._pool = PagePool(n_pages)
        self._check = check
        self._node = node
        self._max_tokens = max_tokens
        self._max_outputs = max_outputs
        self._logits = program.buffer("logits")  # [max_outputs, V]
        self._tokens = np.zeros(max_tokens, np.int32)
        self._positions = np.zeros(max_tokens, np.int32)
        self._sequences = np.zeros(max_tokens, np.int32)
        self._outputs = np.zeros(max_outputs, np.int32)
        self._pages = np.zeros((max_outputs, -(-context // PAGE_SIZE)), np.int32)

        self._waiting: deque[Job] = deque()  # in the order in which they came
        self._running: list[Job] = []  # likewise
        self._retained: list[Sequence] = []  # finished, for their prefixes; the latest last
        self._refused: Job | None = (
            None  # the first in line, where nothing was given back since it found no room
        )

        # Guards the rest. Reentrant: wherever a thread is, it may collect a forgotten stream, which cancels.
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._arrivals: deque[Job] = deque()
        self._in_step: list[Job] = []
        self._closing = False
        self._exiting = False

        self._process = os.getpid()
        self._thread = Background(self._loop, name="clarion-engine")
        self._thread.start()

    # ---- from any thread ---------------------------------------------------------------------------------

    def submit(self, *jobs: Job) -> None:
        """Puts jobs in line.

        Raises:
            ClosedError: after `close`, and in a process forked from the one that holds the engine.
        """
        self.check_process()
        with self._wake:
            if not self._closing:
                self._arrivals.extend(jobs)
                self._wake.notify()
                return
        if self._exiting:
            wait_for_the_end()
        raise ClosedError("the model is closed")

    def check_process(self) -> None:
        """Raises ClosedError in a process forked from the one that holds the engine: nothing runs there."""
        if os.getpid() != self._process:
            raise ClosedError("the model was loaded by another process; load it again after a fork")

    def cancel(self, job: Job) -> None:
        """Ends the job before its next step, or in the middle of one that computes nothing else."""
        if os.getpid() != self._process:
            return
        with self._wake:
            job.cancelled = True
            if self._in_step and all(other.cancelled for other in self._in_step):
                self._program.cancel()
            self._wake.notify()

    def close(self) -> None:
        """Ends every job with a ClosedError, and the thread, which frees what it owns."""
        if os.getpid() != self._process:
            return
        with self._wake:
            if not self._closing:
                self._closing = True
                self._program.cancel()
                self._wake.notify()
        if not self.is_here():
            self._thread.join()

    def is_here(self) -> bool:
        """Whether the engine's thread asks."""
        return threading.current_thread() is self._thread

    def exit(self) -> None:
        """`close`, when the interpreter exits. Who still waits is a daemon thread, which ends with the
        process: it is left waiting, since an error would only be printed."""
        self._exiting = True
        self.close()

    # ---- the engine's thread -----------------------------------------------------------------------------

    def _loop(self) -> None:
        if self._node is not None:
            stay_near(self._node)
        while self._next_arrivals():
            try:
                self._drop_cancelled()
                self._admit()
                self._step()
            except Exception as error:  # every caller shall hear of it; none of the cache can be trusted
                self._end_all(error)
                self._forget(self._pool.n_pages)
        self._drop_cancelled()
        self._end_all(ClosedError("the model was closed"))
        self._retained.clear()
        del self._logits, self._program, self._cache, self._sampler

    def _next_arrivals(self) -> bool:
        """Waits until there is something to do; False when the engine closes."""
        with self._wake:
            while not (self._closing or self._arrivals or self._waiting or self._running):
                self._wake.wait()
            self._waiting.extend(self._arrivals)
            self._arrivals.clear()
            return not self._closing

    def _drop_cancelled(self) -> None:
        for job in [job for job in chain(self._running, self._waiting) if job.cancelled]:
            self._finish(job, job.cancel())

    def _admit(self) -> None:
        """Takes jobs from the line, first come first served, while there are pages for all of their tokens.

        What others may continue is only forgotten for a job that fits then.
        """
        while self._waiting and len(self._running) < self._max_outputs:
            job = self._waiting[0]
            if job is self._refused:
                return
            sequence = self._prefix(job)
            reused = len(sequence.tokens)
            needed = sequence.missing(len(job.todo) - reused)
            room = self._pool.n_free + self._pool.n_freed_by(old.pages for old in self._retained)
            if needed > room and self._running:
                sequence.truncate(0)
                self._refused = job
                return
            self._forget(needed)
            self._running.append(self._waiting.popleft())
            job.start(sequence)

    def _prefix(self, job: Job) -> Sequence:
        """A new sequence that shares as much of the job's beginning as a finished one holds."""
        if job.reuses_prefix and self._retained:
            prompt = job.todo[:-1]  # the last token's logits are wanted, so it has to be computed
            lengths = [sequence.common_prefix(prompt) for sequence in self._retained]
            longest = max(lengths)
            if longest >= SHORTEST_REUSE:
                return self._retained[lengths.index(longest)].fork(longest)
        return Sequence(self._pool, self._cache)

    def _step(self) -> None:
        chosen = self._choose()
        n_tokens = n_outputs = 0
        for row, (job, n) in enumerate(chosen.items()):
            start, end = len(job.sequence.tokens), n_tokens + n
            outputs = job.outputs(n)
            self._tokens[n_tokens:end] = job.todo[:n]
            self._positions[n_tokens:end] = np.arange(start, start + n)
            self._sequences[n_tokens:end] = row
            self._pages[row, : len(job.sequence.pages)] = job.sequence.pages
            self._outputs[n_outputs : n_outputs + len(outputs)] = (
                np.arange(outputs.start, outputs.stop) + n_tokens
            )
            n_tokens, n_outputs = end, n_outputs + len(outputs)
        with self._lock:
            if self._closing or not chosen:
                return
            self._in_step = list(chosen)
        try:
            finished = self._program.run(
                self._cache,
                self._tokens[:n_tokens],
                self._positions[:n_tokens],
                self._sequences[:n_tokens],
                self._pages[: len(chosen)],
                self._outputs[:n_outputs],
            )
        finally:
            with self._lock:
                self._in_step = []
        self._check()
        if not finished:  # whoever is left computes it again
            return
        first = 0
        for job, n in chosen.items():
            last = first + len(job.outputs(n))
            job.sequence.append(job.todo[:n])
            try:
                result: Result | Exception | None = job.advance(n, self._logits[first:last], self._sampler)
            except Exception as error:  # this job's own: the others go on
                result = error
            if result is not None:
                self._finish(job, result)
            first = last

    def _choose(self) -> dict[Job, int]:
        """The jobs of the next step, each with the number of tokens it computes; their pages are reserved."""
        chosen: dict[Job, int] = {}
        n_tokens, n_outputs = self._max_tokens, self._max_outputs
        # Texts before prompts: one token of each is cheap and somebody is reading along.
        for job in sorted(self._running, key=lambda job: len(job.todo) > 1):
            n = job.share(n_tokens, n_outputs)
            if n > 0 and job in self._running and self._reserve(job, n, chosen):
                chosen[job] = n
                n_tokens -= n
                n_outputs -= len(job.outputs(n))
        return chosen

    def _reserve(self, job: Job, n: int, chosen: dict[Job, int]) -> bool:
        """Pages for n more tokens, taken from the jobs that came last if need be; False if it is the last."""
        while not job.sequence.reserve(n):
            if self._retained:
                self._forget(job.sequence.missing(n))
                continue
            victim = self._running.pop()
            self._refused = None
            chosen.pop(victim, None)
            victim.restart()
            self._waiting.appendleft(victim)
            if victim is job:
                return False
        return True

    def _forget(self, n_pages: int) -> None:
        """Frees the pages of finished sequences, oldest first, until n pages are free or none is left."""
        while self._retained and self._pool.n_free < n_pages:
            self._retained.pop(0).truncate(0)

    def _finish(self, job: Job, result: Result | Exception) -> None:
        """The job leaves; what it computed may serve as somebody's prefix."""
        self._refused = None
        if job in self._running:
            self._running.remove(job)
            sequence = job.sequence
            sequence.truncate(len(sequence.tokens))
            for old in [
                old for old in self._retained if sequence.common_prefix(old.tokens) == len(old.tokens)
            ]:
                self._retained.remove(old)
                old.truncate(0)
            self._retained.append(sequence)
            if len(self._retained) > self._max_outputs:
                self._retained.pop(0).truncate(0)
        else:
            self._waiting.remove(job)
        job.put(result)

    def _end_all(self, error: Exception) -> None:
        for job in self._running:
            job.sequence.truncate(0)
        ended = [*self._running, *self._waiting]
        self._running.clear()
        self._waiting.clear()
        if not self._exiting:
            for job in ended:
                job.put(error)
