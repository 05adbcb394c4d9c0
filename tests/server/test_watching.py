"""What a server says of itself: health, metrics, models that run."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from clarion.host.record import Machine, Rates, Record
from clarion.server import loading, metrics
from clarion.server.pool import Served
from clarion.server.run import Running, serve
from clarion.server.settings import Settings
from clarion.server.tally import Histogram, Reads
from tests.server.servers import client, is_idle, post, running, wait_until

TEXT = "/v1/completions"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def fresh(chat_model: Path) -> Iterator[Running]:
    """A server that nobody has asked before."""
    with running([Served("tale", chat_model)], context=2048) as server:
        yield server


def read(server: Running) -> dict[tuple[str, ...], float]:
    """The samples: name and the values of labels but the model's."""
    with client(server) as http:
        answer = http.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name != "model_name"}
            key = (sample.name.removeprefix("clarion:"), *labels.values())
            assert key not in found
            found[key] = sample.value
    return found


# ---- health -----------------------------------------------------------------------------------------------


def test_health_needs_no_key(chat_model: Path) -> None:
    with running([Served("tale", chat_model)], api_keys=("k",)) as server, client(server) as http:
        for path in ("/health", "/v1/health", "/readyz", "/livez"):
            answer = http.get(path)
            assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
            assert http.head(path).status_code == 200
            assert http.post(path).status_code in (401, 405)
        for path in ("/metrics", "/ps", "/props", "/slots", "/health/"):
            assert http.get(path).status_code == 401
        assert http.get("/metrics", headers={"x-api-key": "k"}).status_code == 200


def test_health_says_that_a_model_is_loaded(chat_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the first model is loaded the server answers: health, and others when it is there."""
    gate, began = threading.Event(), threading.Event()
    load = loading.load_model

    def slow(*arguments: Any) -> Any:
        began.set()
        assert gate.wait(60)
        return load(*arguments)

    monkeypatch.setattr(loading, "load_model", slow)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started: queue.SimpleQueue[Running] = queue.SimpleQueue()
    settings = Settings(port=port, quiet=True)
    thread = threading.Thread(
        target=lambda: serve([Served("tale", chat_model)], settings, started=started.put)
    )
    thread.start()
    try:
        assert began.wait(60)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            answer = http.get("/health")
            assert (answer.status_code, answer.json()["status"]) == (503, "loading model")
            assert answer.json()["error"]["code"] == "loading_model"
            assert http.get("/readyz").status_code == 503
            assert http.get("/livez").json() == {"status": "ok"}
            (loads,) = http.get("/ps").json()["models"]
            assert (loads["name"], loads["is_loading"], loads["bytes"]) == ("tale", True, 0)
            assert started.empty()
            waits: list[httpx.Response] = []
            asks = threading.Thread(
                target=lambda: waits.append(http.post(TEXT, json={"prompt": "Once", "max_tokens": 1}))
            )
            asks.start()
            gate.set()
            asks.join(60)
            assert waits[0].status_code == 200
            assert http.get("/health").json() == {"status": "ok"}
    finally:
        gate.set()
        started.get(timeout=60).end()
        thread.join(30)


def test_a_model_that_sleeps_is_healthy(chat_model: Path) -> None:
    with running([Served("tale", chat_model)], idle_seconds=0.05) as server, client(server) as http:
        wait_until(lambda: server.server.pool.find("tale").model is None, "it is not unloaded")
        assert http.get("/health").status_code == 200
        assert http.get("/props").json()["is_sleeping"] is True
        assert http.get("/ps").json()["models"] == []
        assert server.server.pool.find("tale").model is None, "who looks loads nothing"


# ---- metrics ----------------------------------------------------------------------------------------------


def test_metrics_count_what_was_asked(fresh: Running) -> None:
    model = fresh.server.pool.find("tale").model
    assert model is not None
    before = read(fresh)
    assert before["request_success_total", "stop"] == before["e2e_request_latency_seconds_count",] == 0
    prompt = "Once upon a time there was a king. " * 40
    n_prompt = len(model.tokenize(prompt))
    with client(fresh) as http:
        for n, more in ((5, {}), (7, {"stream": True}), (3, {"n": 2, "seed": 1})):
            body = {"prompt": prompt, "max_tokens": n, "ignore_eos": True, **more}
            assert http.post(TEXT, json=body).status_code == 200
        assert http.post(TEXT, json={"prompt": prompt, "max_tokens": 0}).status_code == 200
        assert http.post(TEXT, json={"prompt": "x", "temperature": -1}).status_code == 400
    found = read(fresh)
    lengths = (5, 7, 3, 3, 0)
    assert found["request_success_total", "length"] == 5
    assert found["request_success_total", "stop"] == found["request_success_total", "error"] == 0
    assert found["generation_tokens_total",] == sum(lengths)
    assert found["prompt_tokens_total",] == found["prefix_cache_queries_total",] == 5 * n_prompt
    assert 0 < found["prefix_cache_hits_total",] < 4 * n_prompt
    assert found["e2e_request_latency_seconds_count",] == 5
    assert found["time_to_first_token_seconds_count",] == 4
    assert found["inter_token_latency_seconds_count",] == sum(max(0, n - 1) for n in lengths)
    assert found["request_prompt_tokens_sum",] == 5 * n_prompt
    assert found["request_generation_tokens_sum",] == sum(lengths)
    assert found["request_generation_tokens_bucket", "2.0"] == 1
    assert found["request_generation_tokens_bucket", "5.0"] == 4
    assert found["request_generation_tokens_bucket", "+Inf"] == 5
    times = [found[f"{name}_seconds_sum",] for name in ("time_to_first_token", "e2e_request_latency")]
    assert 0 < times[0] <= times[1]
    parts = ("request_queue_time", "request_prefill_time", "request_decode_time")
    assert sum(found[f"{name}_seconds_sum",] for name in parts) == pytest.approx(times[1])
    assert found["num_requests_running",] == found["num_requests_waiting",] == 0
    assert 0 <= found["kv_cache_usage_perc",] <= 1
    assert found["steps_total",] > 0
    assert found["weight_bytes_read_total",] == found["steps_total",] * model.bytes_per_token
    assert found["bytes_read_per_token",] == model.bytes_per_token
    assert found["loaded_bytes",] == model.memory_bytes
    assert found["models_loaded",] == 1


def test_who_leaves_is_counted(fresh: Running) -> None:
    asked = {"prompt": "Once", "max_tokens": 1900, "ignore_eos": True, "stream": True, "id_slot": 3}
    model = fresh.server.pool.find("tale").model
    assert model is not None
    with post(fresh, TEXT, asked):
        wait_until(lambda: model.figures.generated_tokens > 3, "it does not begin")
        found = read(fresh)
        assert found["num_requests_running",] == 1
        assert found["kv_cache_usage_perc",] > 0
        with client(fresh) as http:
            slots = http.get("/slots").json()
            (loaded,) = http.get("/ps").json()["models"]
        assert [slot["id"] for slot in slots if slot["is_processing"]] == [3]
        assert slots[3]["n_prompt_tokens"] == len(model.tokenize("Once"))
        assert (loaded["running"], loaded["waiting"], loaded["users"]) == (1, 0, 1)
    wait_until(lambda: is_idle(fresh), "it computes on")
    found = read(fresh)
    assert found["request_success_total", "abort"] == 1
    assert found["e2e_request_latency_seconds_count",] == found["request_success_total", "length"] == 0
    assert not fresh.server.pool.find("tale").tally.texts


def test_an_answer_comes_while_a_long_prompt_is_computed(fresh: Running) -> None:
    """Whoever watches does not wait for who computes."""
    asked = {"prompt": "cat " * 1500, "max_tokens": 400, "ignore_eos": True}
    model = fresh.server.pool.find("tale").model
    assert model is not None
    with post(fresh, TEXT, asked):
        wait_until(lambda: model.figures.texts_running == 1, "it does not begin")
        with client(fresh) as http:
            assert http.get("/health").status_code == 200
            assert http.get("/metrics").status_code == 200
            assert http.get("/slots").status_code == 200
        assert model.figures.texts_running == 1, "the text was over before"
    wait_until(lambda: is_idle(fresh), "it computes on")


def test_totals_survive_unloading(chat_model: Path) -> None:
    with running([Served("tale", chat_model)], idle_seconds=0.2) as server, client(server) as http:
        sums = []
        for _ in range(2):
            assert http.post(TEXT, json={"prompt": "Once", "max_tokens": 3, "ignore_eos": True}).is_success
            wait_until(lambda: server.server.pool.find("tale").model is None, "it is not unloaded")
            found = read(server)
            assert ("loaded_bytes",) not in found
            assert found["models_loaded",] == 0
            sums.append((found["generation_tokens_total",], found["request_success_total", "length"]))
    assert sums == [(3, 1), (6, 2)]


def test_the_share_of_bandwidth(fresh: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    model = fresh.server.pool.find("tale").model
    assert model is not None
    assert ("bandwidth_share",) not in read(fresh)
    rates = Rates(model.threads, 1e9, 1.0, 1.0, 1.0)
    record = Record(Machine("p", model.isa, 1, 1), "2026-12-01", (rates,))
    monkeypatch.setattr(metrics, "stored", lambda _: (record, ""))
    monkeypatch.setattr(Reads, "rate", lambda *_: 2.5e8)
    found = read(fresh)
    assert found["memory_bandwidth_bytes",] == 1e9
    assert found["bandwidth_share",] == 0.25


def test_names_of_any_kind(chat_model: Path) -> None:
    name = 'a"b\\c\nd{e="f"} ü'
    with running([Served(name, chat_model)]) as server, client(server) as http:
        families = text_string_to_metric_families(http.get("/metrics").text)
        names = {s.labels["model_name"] for family in families for s in family.samples if s.labels}
        assert names == {name}


def test_who_watches_leaves_no_line(chat_model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with running([Served("tale", chat_model)], quiet=False) as server, client(server) as http:
        for path in ("/health", "/metrics", "/ps", "/livez", "/props"):
            assert http.get(path).status_code == 200
        assert http.post("/health").status_code == 405
    lines = [line for line in capfd.readouterr().err.splitlines() if " ms" in line]
    assert [line.split()[1:4] for line in lines] == [["GET", "/props", "200"], ["POST", "/health", "405"]]


def test_reads() -> None:
    reads = Reads()
    assert reads.rate(1000, 5.0) is None
    assert reads.rate(2000, 5.5) is None, "too soon"
    assert reads.rate(5000, 7.0) == 2000
    assert reads.rate(9000, 7.5) == 2000, "too soon: the one before"
    assert reads.rate(5000, 17.0) == 0


def test_histograms() -> None:
    found = Histogram((1.0, 2.0, 5.0))
    for value, n in ((0.5, 1), (1.0, 1), (1.5, 3), (9.0, 2)):
        found.observe(value, n)
    assert found.counts == [2, 3, 0, 2]
    assert found.sum == 0.5 + 1 + 4.5 + 18


def test_the_page_names_all_metrics(fresh: Running) -> None:
    page = (ROOT / "docs/server.md").read_text(encoding="utf-8")
    with client(fresh) as http:
        families = list(text_string_to_metric_families(http.get("/metrics").text))
    for family in families:
        assert f"`{family.name}" in page, f"{family.name} is missing"
        assert family.documentation


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    import subprocess
    import sys

    code = "import sys, clarion.server.app; print('prometheus_client' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


# ---- what runs --------------------------------------------------------------------------------------------


def test_models_that_run(chat_model: Path) -> None:
    models = [Served("one", chat_model), Served("two", chat_model)]
    with running(models, idle_seconds=100.0, context=128, parallel=4) as server, client(server) as http:
        found = http.get("/ps").json()
        (one,) = found["models"]
        model = server.server.pool.find("one").model
        assert model is not None
        assert 0 < one.pop("unloads_in") <= 100
        assert one == {
            "name": "one",
            "is_loading": False,
            "bytes": model.memory_bytes,
            "context": 128,
            "running": 0,
            "waiting": 0,
            "users": 0,
            "parallel": 4,
        }
        assert found["bytes"] == model.memory_bytes <= found["memory_bytes"]
        assert http.post(TEXT, json={"model": "two", "prompt": "x", "max_tokens": 1}).is_success
        assert [each["name"] for each in http.get("/ps").json()["models"]] == ["one", "two"]


def test_lists_of_models(server: Running) -> None:
    model = server.server.pool.find("tale").model
    assert model is not None
    h = model.program.hyperparameters
    with client(server) as http:
        plain = http.get("/v1/models").json()
        (found,) = plain["data"]
        assert found["meta"] == {
            "n_vocab": model.n_vocab,
            "n_ctx_train": h.context_length,
            "n_embd": h.n_embd,
            "n_params": h.n_parameters,
            "size": model.path.stat().st_size,
        }
        assert "models" not in plain
        # One coding client says who it is, and needs a list of this name, whose entries it wants of its own.
        coding = http.get("/v1/models?client_version=1.2.3").json()
        assert coding == {**plain, "models": []}
        json.dumps(coding)
