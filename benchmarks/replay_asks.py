"""Answer the requests that a server would be asked for, in this process, and print how it went as JSON.

    python benchmarks/replay_asks.py ASKS MODEL --users 16 -t 2 --activations high

What `load_server.py` does through HTTP, users and pauses alike, through Clarion's own streams: so what a
server costs is the difference. `serve.py` calls this; so does `serve_costs.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

from served_work import CONTEXT, Answer, Ask, read, summary

import clarion


async def user(model: clarion.Model, waiting: Iterator[Ask], done: list[Answer]) -> None:
    """One request after the other, as long as there are any."""
    for ask in waiting:
        sent, heard = time.perf_counter(), []
        stream = model.astream(ask.prompt, max_tokens=ask.answer_tokens, temperature=0, ignore_eos=True)
        async for _ in stream:
            heard.append(time.perf_counter())
        assert stream.completion is not None
        timings = stream.completion.timings
        done.append(Answer(sent, heard, timings.prompt_tokens, timings.generated_tokens))


async def run(model: clarion.Model, asks: list[Ask], n_users: int) -> dict[str, float]:
    done: list[Answer] = []
    waiting = iter(asks)
    began, before, loop = time.perf_counter(), time.process_time(), time.thread_time()
    await asyncio.gather(*(user(model, waiting, done) for _ in range(n_users)))
    ended, cpu_seconds = time.perf_counter(), time.process_time() - before
    spent = {"cpu_seconds": cpu_seconds, "loop_seconds": time.thread_time() - loop}
    return {**summary(done, began, ended), **spent}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("asks", type=Path)
    parser.add_argument("model", nargs="?", help="a GGUF file; none: the model that comes with Clarion")
    parser.add_argument("--users", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("-t", "--threads", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--activations", default="high", help="(default: %(default)s)")
    parser.add_argument("--cache-tokens", type=int, help="(default: as many as all users may need)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    with clarion.load(
        arguments.model,
        threads=arguments.threads,
        activations=arguments.activations,
        context=CONTEXT,
        cache_tokens=arguments.cache_tokens or CONTEXT * arguments.users,
        outputs=max(arguments.users, 1),
    ) as model:
        asyncio.run(run(model, [Ask("Once", 16)], 1))  # warm
        print(json.dumps(asyncio.run(run(model, read(arguments.asks), arguments.users))))


if __name__ == "__main__":
    main()
