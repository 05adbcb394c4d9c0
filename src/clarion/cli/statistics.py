"""What was measured while a text was made: a line for people, a report for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clarion import Completion, Model


def _figures(model: Model, completion: Completion) -> dict[str, float | None]:
    """The bandwidth that was recorded for this machine, and the share of it that generation used.

    Measuring it takes seconds and memory: `clarion doctor --measure` does so, nobody else.
    """
    from clarion.host.record import stored

    record, _ = stored(model.isa)
    rates = record.of(model.threads) if record is not None else None
    if rates is None:
        return {"bandwidth": None, "bandwidth_share": None}
    if completion.timings.generation_rate == 0.0:
        return {"bandwidth": rates.bandwidth, "bandwidth_share": None}
    used = completion.timings.generation_rate * model.bytes_per_token
    return {"bandwidth": rates.bandwidth, "bandwidth_share": used / rates.bandwidth}


def line(model: Model, completion: Completion) -> str:
    """What was measured: nothing is said of what did not happen."""
    timings, figures = completion.timings, _figures(model, completion)
    parts = [f"load {model.load_seconds:.2f} s"]
    if timings.generated_tokens:
        parts.append(f"first token {timings.first_token:.2f} s")
    parts.append(_speed("prompt", timings.prompt_tokens, timings.prompt_rate))
    parts.append(_speed("generation", timings.generated_tokens, timings.generation_rate))
    if figures["bandwidth"] and figures["bandwidth_share"]:
        parts.append(f"{figures['bandwidth_share']:.0%} of {figures['bandwidth'] / 1e9:.1f} GB/s")
    return " · ".join((*parts, f"seed {completion.seed}"))


def _speed(what: str, n: int, rate: float) -> str:
    return f"{what} {n} token{'' if n == 1 else 's'}" + (f", {rate:.1f} tokens/s" if rate else "")


def report(model: Model, completion: Completion, chat: bool) -> dict[str, object]:
    timings = completion.timings
    return {
        "model": str(model.path),
        "chat": chat,
        "text": completion.text,
        "tokens": completion.tokens,
        "finish_reason": completion.finish_reason,
        "stopped_by": completion.stopped_by,
        "seed": completion.seed,
        "isa": model.isa,
        "threads": model.threads,
        "load_seconds": model.load_seconds,
        "prompt_tokens": timings.prompt_tokens,
        "generated_tokens": timings.generated_tokens,
        "first_token_seconds": timings.first_token,
        "prompt_tokens_per_second": timings.prompt_rate,
        "generated_tokens_per_second": timings.generation_rate,
        **_figures(model, completion),
    }
