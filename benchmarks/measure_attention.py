"""Measure once what a long past costs Clarion, and print it as JSON.

    python benchmarks/measure_attention.py MODEL THREADS ISA ACTIVATIONS KV PROMPTS CONTEXTS

PROMPTS and CONTEXTS are lists as 512,4096. Steps run on the native machine, without sampling. One page of the
cache is computed and then copied to all others, so that a long past need not be computed first.

The time of a prompt's batch grows linearly with the tokens before it, so a prompt of n tokens takes, for each
token, the mean of its first and its last batch. Generation is the median of a few tokens at each context, and
`kv_rate` the cache's bytes over what a token takes longer there than at a context of one page.
`attention.py` calls this.
"""

from __future__ import annotations

import json
import sys
import time
from statistics import median

import numpy as np

from clarion.host import native
from clarion.host.hierarchy import hierarchy
from clarion.host.numa import thread_nodes
from clarion.plan.sources import Sources
from clarion.programs import make_program, open_file
from clarion.residency import Origin, make_store
from clarion.runtime.measure import bandwidth

BATCH, PAGE, TOKENS = 256, 64, 12


def main(
    path: str, threads: int, isa: str, activations: str, kv: str, prompts: list[int], contexts: list[int]
) -> dict[str, object]:
    module = native(isa)
    longest = max(*prompts, *contexts) + BATCH
    n_pages = -(-longest // PAGE)
    with open_file(path) as file:
        program = make_program(file, context=longest, activations=activations, kv=kv, isa=isa, batch=BATCH)
        sources = Sources(program.weights, file.tensors)
        origin = Origin(module, sources, program.read_together, thread_nodes(threads))
        spec = program.native_spec(make_store(program.weights, "copied", origin))
        bound = module.Program(module.Machine(threads, **hierarchy().machine_options), spec)
        caches = [
            module.KvCache(group.layers, n_pages, PAGE, program.kv.keys, program.kv.values)
            for group in program.state_groups
        ]
        pages = np.arange(n_pages, dtype=np.int32).reshape(1, -1)
        draw = np.random.default_rng(0)

        def seconds(start: int, n: int) -> float:
            """One step: n tokens after `start` others."""
            tokens = draw.integers(0, program.n_vocab, n).astype(np.int32)
            positions = np.arange(start, start + n, dtype=np.int32)
            last = np.array([n - 1], np.int32)
            began = time.perf_counter()
            bound.run(caches, tokens, positions, np.zeros(n, np.int32), [pages] * len(caches), last)
            return time.perf_counter() - began

        seconds(0, BATCH)
        for page in range(1, n_pages):
            for cache in caches:
                cache.copy_page(0, page)
        ends = {start: seconds(start, BATCH) / BATCH for start in sorted({0, *(n - BATCH for n in prompts)})}
        steps = {n: median(seconds(n, 1) for _ in range(TOKENS)) for n in (PAGE, *contexts)}
        moved = program.state_bytes(1)
    return {
        "prompt": {n: (ends[0] + ends[n - BATCH]) / 2 for n in prompts},
        "generation": {n: steps[n] for n in contexts},
        "kv_rate": {n: (n - PAGE) * moved / (steps[n] - steps[PAGE]) for n in contexts},
        "kv_bytes_per_token": moved,
        "bandwidth": bandwidth(threads, isa),
    }


if __name__ == "__main__":
    if len(sys.argv) != 8:
        raise SystemExit(__doc__)
    lists = [[int(n) for n in text.split(",")] for text in sys.argv[6:]]
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:6], *lists)))
