"""Continuous batching: one thread that runs whatever is to be run, step by step.

    arrivals ──▶ scheduler ──▶ batch ──▶ executor.run: rows, tokens drawn from them ──▶ next step
                                                              └──▶ speaker ──▶ callers

Who owns what. The engine's thread owns the executor, the states, the scheduler and the tasks; nobody else
touches them, but for a state on its way to a file or from one: that is the disk's alone (`filing.py`) until
the disk says that it is done. Other threads own nothing but the way in: `submit` appends to the arrivals, a
handle marks its task, the speaker says which texts are over and the disk which files, `close` ends the
thread, all under the lock. Texts leave through the speaker, which owns them; only rows of outputs are handed
over here.

A step takes the next token of every text being generated and fills the batch with pieces of prompts. Since a
result does not depend on the batch it was computed in, who shares a step with whom is a question of speed;
`scheduler.py` answers it.
"""

from __future__ import annotations

import os
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from clarion.errors import CancelledError, ClosedError, ModelError, ParameterError
from clarion.exiting import Background, wait_for_the_end
from clarion.host.hierarchy import Node
from clarion.host.numa import stay_near
from clarion.runtime.completion import FinishReason, TokenLogprob
from clarion.runtime.figures import Counts, Figures
from clarion.runtime.filing import Disk, Errand, load, save
from clarion.runtime.filing import Work as DiskWork
from clarion.runtime.interfaces import Draws, Executor
from clarion.runtime.request import Generate, Keep, Load, Put, Request, Save, Score
from clarion.runtime.scheduler import Preempt, Scheduler, Share, Step, Work
from clarion.runtime.speaker import Drawn, Ended, Event, Failed, Prompted, Speaker, Speech, Started
from clarion.runtime.states.layout import Layout
from clarion.runtime.states.states import SequenceState, States
from clarion.runtime.task import Filing, Scoring, Task, Writing

if TYPE_CHECKING:
    from clarion.runtime.keeping import Keeper
    from clarion.runtime.states.folder import Kept

# Events that wait for somebody to hear of them at most: to wake the speaker costs more than to decode a
# token, but a text that nobody reads along shall not be decoded as a whole at its end.
MOST_UNTOLD = 32

# A task in a step: its share, and the first of its rows of outputs.
Placed = tuple[Task, Share, int]


class Handle:
    """A request that was submitted, as its caller sees it."""

    __slots__ = ("_cancel", "_task")

    def __init__(self, cancel: Callable[[Task], None], task: Task) -> None:
        self._cancel = cancel
        self._task = task

    def cancel(self) -> None:
        """Ends the request before its next step, or in the middle of one that nobody else wants."""
        self._cancel(self._task)


class Engine:
    """Serves requests on one executor until it is closed."""

    def __init__(
        self,
        executor: Executor,
        states: States,
        *,
        max_tokens: int,
        max_outputs: int,
        check: Callable[[], None],
        node: Node | None = None,
        source: str = "",
        keeper: Keeper | None = None,
    ) -> None:
        """`states` hold at least one sequence as long as the context; `check` raises where results are
        worthless; `node` is where the executor's first thread, the engine's, stays; `source` the file's
        name, for errors; `keeper` has a folder for what is retained."""
        self._executor = executor
        self._states = states
        self._scheduler = Scheduler(
            max_tokens=max_tokens, max_outputs=max_outputs, max_running=min(executor.n_slots, max_outputs)
        )
        self._logits = executor.rows("logits")  # [max_outputs, V]
        assert self._logits.shape is not None
        self._n_vocab = self._logits.shape[1]
        self._check = check
        self._node = node
        self._source = source
        self._tasks: dict[int, Task] = {}  # that wait or run
        self._untold: list[Event] = []  # what the speaker is told next
        self._n_untold = 0  # tokens in it
        self._is_heard = False  # somebody waits to hear of it
        self._is_idle = True  # the last round computed nothing
        self._counts = Counts()
        self._keeper = keeper
        self._budget_bytes = states.budget_bytes

        # Guards the rest. Reentrant: wherever a thread is, it may collect a forgotten stream, which cancels.
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._ids = count()
        self._arrivals: list[Task] = []
        self._cancelled: list[Task] = []
        self._spoken: list[Speech] = []  # to their ends
        self._filed: list[Task] = []  # whose states are the engine's again
        self._in_step: list[Task] = []
        self._has_news = False
        self._closing = False
        self._exiting = False

        self._process = os.getpid()
        self._layout = states.layout
        self._disk = Disk()
        self._speaker = Speaker(self._hear_end, self._hear_news)
        self._thread = Background(self._loop, name="clarion-engine")
        try:
            if keeper is not None:
                self._disk.start()
            self._thread.start()
        except BaseException:  # nobody else knows of the threads
            self._speaker.close()
            self._disk.close()
            self.close()
            raise

    # ---- from any thread ----------------------------------------------------------------------------------

    def submit(self, request: Request, put: Put) -> Handle:
        """Puts a request in line.

        Raises:
            ClosedError: after `close`.
            ClosedError, ParameterError: see `check_caller`.
        """
        return self.submit_all([(request, put)])[0]

    def submit_all(self, requests: Iterable[tuple[Request, Put]]) -> list[Handle]:
        """Puts requests in line together: those that are admitted begin in one step."""
        self.check_caller()
        submitted = time.perf_counter()
        tasks = [self._task(request, put, submitted) for request, put in requests]
        with self._wake:
            if not self._closing:
                self._arrivals += tasks
                self._hear_news()
                return [Handle(self._cancel, task) for task in tasks]
        raise self._refusal()

    def _refusal(self) -> ClosedError:
        """It is closed."""
        if self._exiting:
            wait_for_the_end()
        return ClosedError("the model is closed")

    def check_caller(self) -> None:
        """Whether the caller can wait for a result.

        Raises:
            ClosedError: in a process forked from the one that holds the engine: nothing runs there.
            ParameterError: on the engine's thread, in `Score.take`: nothing is computed while that works.
        """
        if os.getpid() != self._process:
            raise ClosedError("the model was loaded by another process; load it again after a fork")
        if self.is_here():
            raise ParameterError("take: it cannot wait for the model that calls it")

    @property
    def layout(self) -> Layout:
        """Of its states."""
        return self._layout

    def start_disk(self) -> None:
        """Before states are saved or loaded: their thread is there.

        Raises:
            ClosedError: after `close`.
            ClosedError, ParameterError: see `check_caller`.
        """
        self.check_caller()
        with self._lock:
            if not self._closing:
                self._disk.start()
                return
        raise self._refusal()

    def figures(self, bytes_per_step: int) -> Figures:
        """What is going on, and what has been; from any thread. A step reads so many bytes of weights."""
        counts = self._counts
        return Figures(
            texts_running=self._scheduler.n_running,
            texts_waiting=self._scheduler.n_waiting + len(self._arrivals),
            cache_bytes=self._budget_bytes,
            cache_bytes_used=counts.bytes_used,
            cache_bytes_retained=counts.bytes_retained,
            prompt_tokens=counts.prompt_tokens,
            reused_tokens=counts.reused_tokens,
            generated_tokens=counts.generated_tokens,
            steps=counts.steps,
            preemptions=counts.preemptions,
            weight_bytes_read=counts.steps * bytes_per_step,
        )

    def close(self) -> None:
        """Ends every request with a ClosedError, and the threads, which free what they own."""
        if os.getpid() != self._process:
            return
        with self._wake:
            if not self._closing:
                self._closing = True
                if self._in_step:
                    self._executor.cancel()
                self._hear_news()
        # Neither of the engine's threads waits for the other, which may need the lock that this one holds: it
        # may collect a forgotten model anywhere.
        if not self.is_here():
            self._thread.join()
            self._speaker.thread.join()
            self._disk.join()

    def is_here(self) -> bool:
        """Whether one of the engine's threads asks."""
        return threading.current_thread() in (self._thread, self._speaker.thread, self._disk.thread)

    def exit(self) -> None:
        """`close`, when the interpreter exits. Who still waits is a daemon thread, which ends with the
        process: it is left waiting, since an error would only be printed."""
        self._exiting = True
        self.close()

    def _task(self, request: Request, put: Put, submitted: float) -> Task:
        match request.wanted:
            case Generate() as generate:
                id = next(self._ids)
                speech = Speech(id, generate, len(request.tokens), put, submitted)
                return Writing(id, request, generate, speech, self._n_vocab)
            case Score() as score:
                return Scoring(next(self._ids), request, score, put)
            case Save() | Load() | Keep() as filed:
                return Filing(next(self._ids), request, filed, put)

    def _cancel(self, task: Task) -> None:
        if os.getpid() != self._process:
            return
        with self._wake:
            self._cancelled.append(task)
            self._leave_step(task)
            self._hear_news()

    def _hear_end(self, speech: Speech) -> None:
        """The speaker's word: a text is over."""
        with self._wake:
            self._spoken.append(speech)
            for task in self._in_step:
                if task.id == speech.id:
                    self._leave_step(task)
            self._hear_news()

    def _hear_filed(self, task: Task) -> None:
        """The disk's word: a state was written or read."""
        with self._wake:
            self._filed.append(task)
            self._hear_news()

    def _leave_step(self, task: Task) -> None:
        """Nobody wants what is being computed for this task. Under the lock."""
        task.is_unwanted = True
        if self._in_step and all(other.is_unwanted for other in self._in_step):
            self._executor.cancel()

    def _hear_news(self) -> None:
        """Something has changed: an idle engine looks again."""
        with self._wake:
            self._has_news = True
            self._wake.notify()

    # ---- the engine's thread: rounds ----------------------------------------------------------------------

    def _loop(self) -> None:
        if self._node is not None:
            stay_near(self._node)
        while self._wait():
            try:
                self._take_in()
                self._admit()
                self._is_idle = not self._step()
                if self._is_idle and not self._tasks:
                    self._keep_next()
            except Exception as error:  # every caller shall hear of it; none of the states can be trusted
                self._end_all(error)
                self._states.forget()
            self._counts.bytes_used = self._states.used_bytes
            self._counts.bytes_retained = self._states.evictable_bytes
            self._tell()
        self._take_in()
        keeping = [
            task
            for task in self._tasks.values()
            if isinstance(task, Filing) and isinstance(task.wanted, Keep)
        ]
        self._stop_filing()
        results = [None if task.errand is None else task.errand.result for task in keeping]
        if not self._exiting:
            self._end_all(ClosedError("the model was closed"))
        self._tell()
        if self._keeper is not None:
            for task, result in zip(keeping, results, strict=True):
                if result is None:
                    self._keeper.note(task.tokens)
                else:
                    self._keeper.hear(result)
            self._keeper.finish()
        self._speaker.close()
        self._disk.close()
        del self._logits, self._executor, self._states, self._keeper
        self._tasks.clear()

    def _wait(self) -> bool:
        """Waits until there may be something to do; False when the engine closes."""
        if not (self._is_idle or self._has_news):  # `close` brings news, too
            return True
        with self._wake:
            while self._is_idle and not (self._has_news or self._closing):
                self._wake.wait()
            self._has_news = False
            return not self._closing

    def _take_in(self) -> None:
        """Takes what other threads left: new tasks first, so that each end finds its task."""
        if not (self._arrivals or self._cancelled or self._spoken or self._filed):
            return  # else a lock in each step, for nothing
        with self._lock:
            arrivals, self._arrivals = self._arrivals, []
            cancelled, self._cancelled = self._cancelled, []
            spoken, self._spoken = self._spoken, []
            filed, self._filed = self._filed, []
        for task in arrivals:
            self._tasks[task.id] = task
            self._scheduler.arrive(task.id)
        for speech in spoken:
            writing = self._tasks.get(speech.id)
            if isinstance(writing, Writing):
                self._end_spoken(writing)
        for task in filed:
            if task.id in self._tasks:
                self._end_errand(task)
        for task in cancelled:
            if task.id in self._tasks:
                self._end_cancelled(task)

    def _note(self, event: Event, *, is_heard: bool) -> None:
        """Something happened, of which the caller hears now, or later with the rest."""
        self._untold.append(event)
        self._is_heard |= is_heard

    def _tell(self) -> None:
        """Tells the speaker what has happened, if somebody waits to hear of it."""
        if self._is_heard or len(self._untold) >= MOST_UNTOLD:
            told, self._untold = self._untold, []
            n_tokens, self._n_untold = self._n_untold, 0
            self._is_heard = False
            self._speaker.tell(told, n_tokens)

    def _admit(self) -> None:
        """Starts tasks from the line, as far as the scheduler admits them."""
        while (id := self._scheduler.first()) is not None:
            task = self._tasks[id]
            state = self._open(task)
            n = len(task.todo) if task.kept is None else max(len(task.todo), len(task.kept[1].tokens))
            missing = state.missing(n - state.length, alone=True)
            if not self._scheduler.admit(missing, self._describe, self._states.room_for):
                state.release()
                return
            task.start(state)
            if task.kept is not None:
                self._read_kept(task, task.kept[1])
            else:
                self._begin(task)

    def _begin(self, task: Task) -> None:
        """A task has a state that holds what it need not compute."""
        n = task.state.length
        if isinstance(task, Filing):
            self._file(task)
            return
        self._counts.reused_tokens += min(n, task.n_prompt)
        if isinstance(task, Writing) and not task.has_started:
            task.has_started = True
            task.n_prompt_done = n
            self._note(Started(task.speech, time.perf_counter(), n), is_heard=False)

    def _open(self, task: Task) -> SequenceState:
        """A state for a task, with what is retained of its tokens."""
        state = self._states.open(task.todo, reuse=True, most=task.reusable)
        assert state is not None, "fewer slots than tasks that run"
        if self._keeper is not None and not isinstance(task, Filing):
            task.kept = self._keeper.find(task.todo[: task.reusable], state.length)
        if task.kept is not None:
            state.release()  # a file has more of it
            state = self._states.open(task.todo, reuse=False)
            assert state is not None
        if isinstance(task, Filing) and isinstance(task.wanted, Load) and state.length < len(task.todo):
            state.release()  # a file has all of it
            state = self._states.open(task.todo, reuse=False)
            assert state is not None
        return state

    def _describe(self, id: int) -> Work:
        task = self._tasks[id]
        return task.work() if task.errand is None else Work(0, 0, _no_bytes, held=True)

    # ---- the engine's thread: a step ----------------------------------------------------------------------

    def _step(self) -> bool:
        """Computes what the scheduler chooses; False where there is nothing to compute."""
        step = self._next_step()
        if not step.shares:
            return False
        self._tell()
        row, placed = 0, []
        for share in step.shares:
            placed.append((self._tasks[share.id], share, row))
            row += share.outputs
        drawing = [(task, row) for task, share, row in placed if share.outputs and isinstance(task, Writing)]
        drawn = self._run(placed, ([task.sampler for task, _ in drawing], [row for _, row in drawing]))
        if drawn is None:  # whoever is left computes it again
            return True
        self._check()
        self._counts.steps += 1
        for task, share, row in placed:
            self._counts.prompt_tokens += min(share.tokens, max(0, task.n_prompt - task.state.length))
            task.advance(share.tokens)
            match task:
                case Writing():
                    self._advance_prompt(task)
                case Scoring():
                    self._hand_over(task, share, row)
                case Filing():
                    self._file(task)
        if drawing:
            self._hear_drawn(drawing, drawn)
        return True

    def _next_step(self) -> Step:
        """The scheduler's next step, with room for it."""
        while isinstance(step := self._scheduler.next(self._describe, self._states.room_for), Preempt):
            assert len(self._scheduler.running) > 1, (
                "a text is longer than the context that it was asked for in"
            )
            self._preempt(self._tasks[step.id])
        for share in step.shares:
            has_room = self._tasks[share.id].reserve(share.tokens, self._states.grain)
            assert has_room, "the states need more bytes than they said"
        return step

    def _run(self, placed: Sequence[Placed], draws: Draws) -> Sequence[int | ValueError] | None:
        """What was drawn; None where the step was cancelled."""
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        outputs: list[int] = []
        tasks = [task for task, _, _ in placed]
        for task, share, _ in placed:
            n, start = share.tokens, task.state.length
            tokens += task.todo[:n]
            positions += range(start, start + n)
            slots += [task.state.slot] * n
            outputs += range(len(tokens) - share.outputs, len(tokens))
        with self._lock:
            if self._closing or all(task.is_unwanted for task in tasks):
                return None
            self._in_step = tasks
        try:
            return self._executor.run(
                array("i", tokens),
                array("i", positions),
                array("i", slots),
                self._states.tables,
                array("i", outputs),
                draws,
            )
        finally:
            with self._lock:
                self._in_step = []

    def _advance_prompt(self, task: Writing) -> None:
        """Some tokens were computed, perhaps of the prompt."""
        if task.n_prompt_done < task.n_prompt:
            # What was computed before the task was preempted does not count again.
            task.n_prompt_done = max(task.n_prompt_done, min(task.state.length, task.n_prompt))
            done = Prompted(task.speech, time.perf_counter(), task.n_prompt_done)
            self._note(done, is_heard=task.reports)
            if not task.todo:
                task.mark()
                if task.room == 0:
                    self._end(task, done.at, "length", None)

    def _hand_over(self, task: Scoring, share: Share, row: int) -> None:
        """Hands rows of outputs over, from row `row` on, and ends the task with the last of them."""
        n_done = task.state.length
        try:
            if share.outputs:
                task.take(n_done - share.outputs - task.first, self._logits[row : row + share.outputs])
        except BaseException as error:  # the caller's own, also SystemExit: the others go on
            self._retire(task)
            task.put(error)
            return
        if not task.todo:
            self._retire(task)
            task.put(n_done - task.first)

    def _file(self, task: Filing) -> None:
        """Hands a state over to the disk, once it is there, or there is room for it."""
        state = task.state
        if isinstance(task.wanted, Save):
            if task.todo:
                return
            task.mark()  # others can begin with it while it is written
            work = save(state, task.wanted.path)
        elif isinstance(task.wanted, Keep):
            assert self._keeper is not None
            if task.todo:  # meanwhile it was evicted
                self._retire(task)
                return
            work = partial(self._keeper.folder.keep, state)
        else:
            if not task.todo:  # it is retained already
                self._retire(task)
                task.put(len(task.tokens))
                return
            has_room = state.make_room(len(task.todo))
            assert has_room, "the states need more bytes than they said"
            work = load(state, task.wanted.path, self._layout, task.tokens)
        self._hand_to_disk(task, work)

    def _hand_to_disk(self, task: Task, work: DiskWork) -> None:
        """The task's state is the disk's until `_end_errand`."""
        task.errand = Errand(work, partial(self._hear_filed, task))
        self._disk.do(task.errand)

    def _hear_drawn(self, drawing: Sequence[tuple[Writing, int]], drawn: Sequence[int | ValueError]) -> None:
        """The next token of each text, drawn from its row of outputs."""
        now = time.perf_counter()
        speeches: list[Speech] = []
        tokens: list[int] = []
        logprobs: list[TokenLogprob | None] = []
        # Noted before the ends of these texts, and told with them: by then the lists are filled.
        event = Drawn(now, speeches, tokens, logprobs)
        self._note(event, is_heard=any(task.is_heard for task, _ in drawing))
        self._n_untold += len(drawing)
        self._counts.generated_tokens += len(drawing)
        for (task, row), token in zip(drawing, drawn, strict=True):
            if isinstance(token, ValueError):
                self._fail(task, token)
            elif token in task.stop_tokens:
                self._end(task, now, "stop", token)
            else:
                logprobs.append(self._logprob(task, row, token))
                speeches.append(task.speech)
                tokens.append(token)
                task.n_written += 1
                if task.n_written == task.room:
                    self._end(task, now, "length", None)
                else:
                    task.todo.append(token)

    def _logprob(self, task: Writing, row: int, token: int) -> TokenLogprob | None:
        if task.logprobs is None:
            return None
        (_, logprob), *top = self._executor.log_probabilities(row, token, task.logprobs)
        return TokenLogprob(token, logprob, tuple(top))

    # ---- the engine's thread: ends ------------------------------------------------------------------------

    def _preempt(self, task: Task) -> None:
        """The task gives its bytes back. What nobody takes until its turn comes is not computed again."""
        if isinstance(task, Writing) and task.has_ended:
            self._retire(task)
            return
        self._states.retain(task.restart())
        self._scheduler.preempt(task.id)
        self._counts.preemptions += 1

    def _end(self, task: Writing, at: float, reason: FinishReason, stopped_by: int | None) -> None:
        """A text ends, unless the speaker finds a stop string before."""
        self._note(Ended(task.speech, at, reason, stopped_by), is_heard=True)
        self._await_word(task)

    def _fail(self, task: Writing, cause: ValueError) -> None:
        """No token can be drawn for a text."""
        position = task.n_prompt + task.n_written
        damaged = self._source and str(cause).startswith("the logit of token")  # it is no number
        hint = f": is the model's file {self._source} sound?" if damaged else ""
        error = ModelError(f"{task.name}no token can be chosen for position {position}: {cause}{hint}")
        error.__cause__ = cause
        self._note(Failed(task.speech, error), is_heard=True)
        self._await_word(task)

    def _await_word(self, task: Writing) -> None:
        """A text that stop strings may end keeps its state until the speaker says where that was."""
        if task.may_stop and task.is_running:
            task.has_ended = True
        else:
            self._retire(task)

    def _end_spoken(self, task: Writing) -> None:
        """The speaker has said where the text ends."""
        if task.is_running:
            task.take_back()
        self._retire(task)

    def _end_cancelled(self, task: Task) -> None:
        if task.errand is not None:
            task.errand.abandon()  # and the task ends when it has
            return
        match task:
            case Writing():
                if not task.has_ended:
                    self._end(task, time.perf_counter(), "cancelled", None)
            case Scoring() | Filing():
                self._retire(task)
                task.put(CancelledError("the computation was cancelled"))

    def _end_errand(self, task: Task) -> None:
        """The disk has done what it could."""
        assert task.errand is not None
        errand, task.errand = task.errand, None
        if isinstance(task, Filing):
            self._end_filed(task, errand.result)
        else:
            self._end_read(task, errand)

    def _end_filed(self, task: Filing, result: int | BaseException) -> None:
        if isinstance(task.wanted, Load):
            if isinstance(result, BaseException):  # part of a state
                task.stop().release()
            task.todo.clear()
        self._retire(task)
        task.put(result)

    def _stop_filing(self) -> None:
        """The disk lets go of all states, perhaps after a piece of work; what is kept, it writes to its
        end."""
        busy = [(task, task.errand) for task in self._tasks.values() if task.errand is not None]
        for task, errand in busy:
            if not (isinstance(task, Filing) and isinstance(task.wanted, Keep)):
                errand.abandon()
        for _, errand in busy:
            errand.wait()

    def _retire(self, task: Task) -> None:
        """The task leaves; what it computed may serve as somebody's prefix."""
        if task.is_running:
            task.mark()
            if self._keeper is not None and isinstance(task, Writing):
                self._keeper.note(task.state.tokens)
            self._states.retain(task.stop())
        self._scheduler.leave(task.id)
        del self._tasks[task.id]

    def _end_all(self, error: Exception) -> None:
        self._stop_filing()
        for task in self._tasks.values():
            if task.is_running:
                task.stop().release()
            self._scheduler.leave(task.id)
            match task:
                case Writing(speech=speech):
                    self._note(Failed(speech, error), is_heard=True)
                case Scoring(put=put) | Filing(put=put):
                    put(error)
        self._tasks.clear()

    # ---- the engine's thread: the folder of prefixes -------------------------------------------------------

    def _read_kept(self, task: Task, kept: Kept) -> None:
        """Lets the disk fill a task's state."""
        assert self._keeper is not None
        has_room = task.state.make_room(len(kept.tokens))
        assert has_room, "the states need more bytes than they said"
        self._hand_to_disk(task, partial(self._keeper.folder.fill, task.state, kept))

    def _end_read(self, task: Scoring | Writing, errand: Errand) -> None:
        """A task's state was filled; or not, and then its tokens are computed."""
        assert task.kept is not None
        (n, _), task.kept = task.kept, None
        if errand.result is True:
            task.state.truncate(n)
            task.start(task.state)
            task.mark()
        else:
            task.stop().release()  # part of a state
        if errand.is_unwanted:
            self._end_cancelled(task)
            return
        if not task.is_running:
            state = self._states.open(task.todo, reuse=True, most=task.reusable)
            assert state is not None
            task.start(state)
        self._begin(task)

    def _keep_next(self) -> None:
        """Nobody wants anything: time to write what may be wanted."""
        if self._keeper is not None and (tokens := self._keeper.next()) is not None:
            task = Filing(next(self._ids), Request(tuple(tokens), Keep()), Keep(), self._keeper.hear)
            self._tasks[task.id] = task
            self._scheduler.arrive(task.id)
            self._is_idle = False


def _no_bytes(_: int) -> int:
    """What somebody else works on needs none now."""
    return 0
