"""What can be compared: how each engine is asked for one measurement, and how its answer is read."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from measured_work import STEPS

HERE = Path(__file__).parent
DEFAULT_CACHE = "f16"  # of every engine here
LEAST_CONTEXT = 256  # positions of each text: llama.cpp makes whole multiples of so many

# What an engine answers, once:
#   prompt      {tokens before: {tokens: tokens/s}}
#   generation  {tokens before: tokens/s}; empty for a model that gives vectors
#   texts       {texts that generate at once: tokens/s of all}; one text's speed is its generation
#   version, and what else is worth keeping
Measured = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Work:
    """What every engine does."""

    prompts: tuple[int, ...]
    generated: int
    texts: tuple[int, ...]
    depths: tuple[int, ...]

    def arguments(self, cache: str) -> list[str]:
        lists = [",".join(map(str, numbers)) for numbers in (self.prompts, self.texts, self.depths)]
        shared = ["-p", lists[0], "-n", str(self.generated), "--texts", lists[1], "--depth", lists[2]]
        return [*shared, "--cache", cache]

    @property
    def several(self) -> tuple[int, ...]:
        """Numbers of texts that share their steps."""
        return tuple(n for n in self.texts if n > 1)


@dataclass(slots=True)
class Engine:
    """Something that reads a model file with a number of threads, and one measurement of each round.

    Attributes:
        command: prints an answer, or what `llama-bench -o json` does.
        isa: the native module that Clarion was told to use; "" for other engines.
        texts_command: prints how several texts do, as llama-batched-bench, where `command` does not.
    """

    name: str
    model: str
    threads: int
    cache: str
    command: list[str]
    texts_command: list[str] = field(default_factory=list)
    isa: str = ""
    rounds: list[Measured] = field(default_factory=list)

    @property
    def is_clarion(self) -> bool:
        return bool(self.isa)

    @property
    def key(self) -> tuple[str, ...]:
        """Rounds with the same are of the same measurement."""
        return (self.name, *self.command, *self.texts_command)

    def measure(self) -> None:
        """Measure once more.

        Raises:
            SystemExit: the engine failed; its own message stands above.
        """
        answer = json.loads(self._output(self.command))
        found = from_llama_bench(answer) if isinstance(answer, list) else answer
        if self.texts_command:
            found["texts"] = from_batched_bench(self._output(self.texts_command))
        self.rounds.append({"date": datetime.now(UTC).date().isoformat(), **found})

    def _output(self, command: list[str]) -> str:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{self.name} failed: {shlex.join(command)}")
        return done.stdout


def from_llama_bench(tests: list[dict[str, Any]]) -> Measured:
    """Read what `llama-bench -o json` prints."""
    prompt: dict[str, dict[str, float]] = {}
    generation: dict[str, float] = {}
    for test in tests:
        depth, speed = str(test.get("n_depth", 0)), float(test["avg_ts"])
        if test["n_gen"] == 0:
            prompt.setdefault(depth, {})[str(test["n_prompt"])] = speed
        else:
            generation[depth] = speed
    first = tests[0]
    settings = {}
    if "flash_attn" in first:  # a truth, or since it can be left to the program a number
        settings["flash_attention"] = {-1: "auto", 0: "disabled", 1: "enabled"}[int(first["flash_attn"])]
    return {
        "prompt": prompt,
        "generation": generation,
        "texts": {},
        "version": first["build_commit"],
        **settings,
    }


def from_batched_bench(output: str) -> dict[str, float]:
    """Read the table that llama-batched-bench prints: PP, TG, B, N_KV, T_PP, S_PP, T_TG, S_TG, T, S."""
    rows = [line.strip(" |").split("|") for line in output.splitlines() if re.match(r"\|\s*\d", line)]
    return {str(int(row[2])): float(row[7]) for row in rows}


def clarion(model: str, threads: int, cache: str, work: Work, isa: str, activations: str) -> Engine:
    command = [sys.executable, str(HERE / "measure_clarion.py"), model, "-t", str(threads)]
    command += [*work.arguments(cache), "--isa", isa, "--activations", activations]
    name = _named(f"Clarion {isa} {activations}", cache)
    return Engine(name, model, threads, cache, command, isa=isa)


def llama_cpp_python(model: str, threads: int, cache: str, work: Work, python: str) -> Engine:
    command = [python, str(HERE / "measure_llama_cpp.py"), model, "-t", str(threads)]
    command += work.arguments(cache)
    return Engine(_named("llama-cpp-python", cache), model, threads, cache, command)


def named_program(text: str) -> tuple[str, list[str]]:
    """A command with its own arguments, and the name before it, or one that it gets for the tables."""
    name, equals, words = text.rpartition("=")
    command = shlex.split(words)
    return name if equals else " ".join([os.path.basename(command[0]), *command[1:]]), command


def llama_bench(
    model: str, threads: int, cache: str, work: Work, program: str, batched: dict[str, list[str]]
) -> Engine:
    """`program` is read as `named_program` says; `batched` has the llama-batched-bench of some names."""
    name, command = named_program(program)
    formats = _cache_arguments(cache)
    shared = ["-m", model, "-t", str(threads), "-p", ",".join(map(str, work.prompts))]
    shared += ["-n", str(work.generated), "-r", "1", *formats]
    if work.depths != (0,):
        shared += ["-d", ",".join(map(str, work.depths))]
    together: list[str] = []
    if name in batched and work.several:
        context = max(work.several) * max(LEAST_CONTEXT, STEPS + 1)
        together = [*batched[name], "-m", model, "-t", str(threads), "-c", str(context), *formats]
        together += ["-npp", "1", "-ntg", str(STEPS), "-npl", ",".join(map(str, work.several))]
    return Engine(_named(name, cache), model, threads, cache, [*command, *shared, "-o", "json"], together)


def _cache_arguments(cache: str) -> list[str]:
    """As llama.cpp's programs take them; nothing where it is their default."""
    if cache == DEFAULT_CACHE:
        return []
    keys, _, values = cache.partition(":")
    return ["-ctk", keys, "-ctv", values or keys]


def _named(name: str, cache: str) -> str:
    return name if cache == DEFAULT_CACHE else f"{name} ({cache})"


def add_rounds(engines: list[Engine], report: dict[str, Any]) -> None:
    """Give the engines the rounds that an earlier report has of the same commands."""
    earlier = {
        (entry["name"], *entry["command"], *entry.get("texts_command", ())): entry["rounds"]
        for entry in report["engines"]
    }
    for engine in engines:
        engine.rounds.extend(earlier.get(engine.key, ()))


def entries(engines: list[Engine]) -> Iterator[dict[str, Any]]:
    for engine in engines:
        yield {
            "name": engine.name,
            "model": engine.model,
            "threads": engine.threads,
            "cache": engine.cache,
            "command": engine.command,
            "texts_command": engine.texts_command,
            "rounds": engine.rounds,
        }


def versions(engines: list[Engine]) -> dict[str, str]:
    """Of each engine the version, what it was compiled for and how it attends, as far as it says so."""
    found: dict[str, list[str]] = {}
    for engine in engines:
        for measured in engine.rounds:
            words = [str(measured["version"])]
            if "built_for" in measured:
                words.append(f"compiled for {measured['built_for']}")
            if "flash_attention" in measured:
                words.append(f"flash attention {measured['flash_attention']}")
            known = found.setdefault(engine.name, [])
            if ", ".join(words) not in known:
                known.append(", ".join(words))
    return {name: "; ".join(known) for name, known in found.items()}
