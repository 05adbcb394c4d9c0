"""GET /metrics: what the server does, as Prometheus reads it.

    event loop                          thread
    Tally, Figures ──look──▶ [Seen] ──▶ families ──▶ text

Nothing is collected but what `Tally` and the engines count anyway: a server that nobody watches pays nothing.
The names are those that dashboards of vLLM know, behind `clarion:`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from clarion.host.record import stored
from clarion.model import Model
from clarion.runtime.figures import Figures
from clarion.server.call import Call
from clarion.server.pool import Served
from clarion.server.tally import REASONS, Histogram, total

if TYPE_CHECKING:
    from prometheus_client import Metric

PREFIX: Final = "clarion:"
_TYPE: Final = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


@dataclass(frozen=True, slots=True)
class Seen:
    """A model at one moment. What is not known is None, and no metric says it.

    Attributes:
        model: where it is loaded.
        figures: totals since the server's start.
        now: what its engine does now.
        n_waiting: requests in its line.
        n_bytes: that it takes.
        ended: texts by the reason of their end.
        histograms: by the name of the metric.
        rate: bytes of weights read in a second, since the look before.
    """

    name: str
    model: Model | None
    figures: Figures
    now: Figures
    n_waiting: int
    n_bytes: int
    ended: dict[str, int]
    histograms: dict[str, Histogram]
    rate: float | None

    @property
    def bandwidth(self) -> float | None:
        """Bytes in a second that the machine reads with the model's threads, where that was measured."""
        if self.model is None:
            return None
        record, _ = stored(self.model.isa)
        rates = record.of(self.model.threads) if record is not None else None
        return None if rates is None else rates.bandwidth

    @property
    def share(self) -> float | None:
        bandwidth = self.bandwidth
        return None if bandwidth is None or self.rate is None else self.rate / bandwidth

    @property
    def cache_usage(self) -> float | None:
        budget = self.now.cache_bytes
        return (self.now.cache_bytes_used - self.now.cache_bytes_retained) / budget if budget else None


@dataclass(frozen=True, slots=True)
class Value:
    """A metric with one value for each model."""

    name: str
    kind: str
    help: str
    value: Callable[[Seen], float | None]


VALUES: Final = (
    Value("num_requests_running", "gauge", "Texts that are computed.", lambda s: s.now.texts_running),
    Value(
        "num_requests_waiting",
        "gauge",
        "Texts and requests that wait: for a place, or for room in the cache.",
        lambda s: s.n_waiting + s.now.texts_waiting,
    ),
    Value(
        "kv_cache_usage_perc",
        "gauge",
        "Share of the cache that running texts hold, 0 to 1.",
        lambda s: s.cache_usage,
    ),
    Value(
        "prompt_tokens",
        "counter",
        "Tokens of prompts, computed or found in the cache.",
        lambda s: s.figures.prompt_tokens + s.figures.reused_tokens,
    ),
    Value("generation_tokens", "counter", "Tokens of answers.", lambda s: s.figures.generated_tokens),
    Value(
        "prefix_cache_queries",
        "counter",
        "Tokens of prompts that were looked for in the cache.",
        lambda s: s.figures.prompt_tokens + s.figures.reused_tokens,
    ),
    Value("prefix_cache_hits", "counter", "Those that were found.", lambda s: s.figures.reused_tokens),
    Value(
        "num_preemptions",
        "counter",
        "How often a text gave up its place, to be computed again later.",
        lambda s: s.figures.preemptions,
    ),
    Value("steps", "counter", "Batches that were computed.", lambda s: s.figures.steps),
    Value(
        "weight_bytes_read",
        "counter",
        "Bytes of weights that these read.",
        lambda s: s.figures.weight_bytes_read,
    ),
    Value(
        "bytes_read_per_token",
        "gauge",
        "Bytes of weights that one token reads, computed alone.",
        lambda s: s.model.bytes_per_token if s.model is not None else None,
    ),
    Value(
        "memory_bandwidth_bytes",
        "gauge",
        "Bytes in a second that the machine reads with the model's threads, by clarion doctor --measure.",
        lambda s: s.bandwidth,
    ),
    Value(
        "bandwidth_share",
        "gauge",
        "Share of this that reading weights took, since the scrape before.",
        lambda s: s.share,
    ),
    Value(
        "loaded_bytes",
        "gauge",
        "Bytes of weights, states and workspace of a loaded model.",
        lambda s: s.n_bytes if s.model is not None else None,
    ),
)
HISTOGRAMS: Final = {
    "time_to_first_token_seconds": "From a request's arrival to the first token of a text.",
    "inter_token_latency_seconds": "Between two tokens: of each text, their mean.",
    "e2e_request_latency_seconds": "From a request's arrival to the last token of a text.",
    "request_queue_time_seconds": "From a request's arrival until the engine takes a text up.",
    "request_prefill_time_seconds": "From then to the first token.",
    "request_decode_time_seconds": "From the first token to the last.",
    "request_prompt_tokens": "Tokens of a text's prompt.",
    "request_generation_tokens": "Tokens of a text's answer.",
}
SUCCESS: Final = ("request_success", "Texts that ended, by finished_reason: " + ", ".join(REASONS) + ".")
MODELS: Final = ("models_loaded", "Models that are loaded.")
MEMORY: Final = ("memory_budget_bytes", "Bytes that all loaded models together may take.")


async def metrics(call: Call) -> None:
    """GET /metrics"""
    pool = call.server.pool
    seen = [
        look(served)
        for served in pool.known()
        if served.model is not None or any(served.tally.ended.values())
    ]
    content = await asyncio.to_thread(text, seen, pool.memory_bytes)
    await call.answer_bytes(content, headers=(_TYPE,))


def look(served: Served) -> Seen:
    """What is known of a model now."""
    model, tally = served.model, served.tally
    now = Figures() if model is None else model.figures
    figures = total(tally.past, now)
    found = (
        *(tally.first_token, tally.between_tokens, tally.whole, tally.queue, tally.prompt, tally.generation),
        *(tally.prompt_tokens, tally.generated_tokens),
    )
    return Seen(
        served.name,
        model,
        figures,
        now,
        served.line.waiting,
        model.memory_bytes if model is not None else 0,
        dict(tally.ended),
        {name: each.copied() for name, each in zip(HISTOGRAMS, found, strict=True)},
        tally.reads.rate(figures.weight_bytes_read, time.monotonic()),
    )


def text(seen: list[Seen], memory_bytes: int) -> bytes:
    """Prometheus' text."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(seen, memory_bytes))
    return generate_latest(registry)


class _Collector:
    """Gives what was seen, once."""

    def __init__(self, seen: list[Seen], memory_bytes: int) -> None:
        self._seen = seen
        self._memory_bytes = memory_bytes

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        families = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}
        for each in VALUES:
            family = families[each.kind](PREFIX + each.name, each.help, labels=("model_name",))
            for seen in self._seen:
                if (value := each.value(seen)) is not None:
                    family.add_metric((seen.name,), value)
            yield family
        success = CounterMetricFamily(
            PREFIX + SUCCESS[0], SUCCESS[1], labels=("model_name", "finished_reason")
        )
        for seen in self._seen:
            for reason, n in seen.ended.items():
                success.add_metric((seen.name, reason), n)
        yield success
        for name, said in HISTOGRAMS.items():
            histogram = HistogramMetricFamily(PREFIX + name, said, labels=("model_name",))
            for seen in self._seen:
                found = seen.histograms[name]
                histogram.add_metric((seen.name,), _buckets(found), found.sum)
            yield histogram
        n_loaded = sum(seen.model is not None for seen in self._seen)
        yield GaugeMetricFamily(PREFIX + MODELS[0], MODELS[1], value=n_loaded)
        yield GaugeMetricFamily(PREFIX + MEMORY[0], MEMORY[1], value=self._memory_bytes)


def _buckets(found: Histogram) -> list[tuple[str, float]]:
    """Each with all below it, as Prometheus has them."""
    n = 0
    buckets = []
    for bound, count in zip((*found.bounds, float("inf")), found.counts, strict=True):
        n += count
        buckets.append(("+Inf" if bound == float("inf") else repr(bound), float(n)))
    return buckets
