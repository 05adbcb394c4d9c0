"""`clarion serve` as a process: its start, its signals, its end."""

from __future__ import annotations

import json
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import httpx
import pytest

from clarion.cli.main import execute
from clarion.cli.serve import BYTES
from tests.server.processes import CLARION, started
from tests.server.servers import events, wait_until

LONG = {"prompt": "Once upon a time", "max_tokens": 1900, "ignore_eos": True, "stream": True, "n": 8}


def test_start_and_end(chat_model: Path) -> None:
    with started(str(chat_model), "-c", "256", "--cache-bytes", "64M", "--alias", "a,b") as server:
        url = server.url
        found = httpx.get(f"{url}/v1/models").json()["data"]
        assert [(each["id"], each["aliases"], each["context_length"]) for each in found] == [
            ("tale", ["a", "b"], 256)
        ]
        assert httpx.post(
            f"{url}/v1/completions", json={"model": "b", "prompt": "x", "max_tokens": 2}
        ).is_success
        server.process.send_signal(signal.SIGTERM)
        assert server.end() == 0
    loaded, listening, *requests = server.lines
    assert re.fullmatch(
        r"clarion: loaded tale: context of 256 tokens, a cache of 64 MB for all texts, "
        r"\d+ MB in all, \d+ threads, in [\d.]+ s",
        loaded,
    )
    assert re.fullmatch(r"clarion: listening at http://127.0.0.1:\d+ .*", listening)
    assert re.fullmatch(r"clarion: POST /v1/completions 200 [\d.]+ ms, \d \+ 2 tokens", requests[1])


def test_what_was_computed_is_found_after_a_restart(chat_model: Path, tmp_path: Path) -> None:
    body = {"prompt": "Once upon a time there was an old king. " * 18, "max_tokens": 4, "temperature": 0}
    found = []
    for _ in range(2):
        with started(str(chat_model), "-c", "256", "--prefix-dir", str(tmp_path)) as server:
            found.append(httpx.post(f"{server.url}/v1/completions", json=body, timeout=60).json())
            server.process.send_signal(signal.SIGTERM)
            assert server.end() == 0
    cached = [answer["usage"]["prompt_tokens_details"]["cached_tokens"] for answer in found]
    assert cached[0] == 0
    assert cached[1] >= found[0]["usage"]["prompt_tokens"] - 1 > 128
    assert found[0]["choices"] == found[1]["choices"]


def test_the_first_request_finds_everything_ready(chat_model: Path) -> None:
    """The process that renders templates is there before anybody has asked."""
    with started(str(chat_model)) as server:
        assert server.url
        threads = Path(f"/proc/{server.process.pid}/task")

        def has_child() -> bool:
            return any(path.read_text().strip() for path in threads.glob("*/children"))

        wait_until(has_child, "no process was started")


def stream(url: str, body: dict[str, Any], found: list[str]) -> threading.Thread:
    """Reads an answer in a thread, which ends with it."""

    def read() -> None:
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as answer:
            for part in answer.iter_text():
                found.append(part)

    thread = threading.Thread(target=read)
    thread.start()
    wait_until(lambda: bool(found), "nothing comes")
    return thread


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_running_answers_come_to_their_end(chat_model: Path, number: int) -> None:
    with started(str(chat_model), "--grace-seconds", "60") as server:
        found: list[str] = []
        thread = stream(server.url, LONG, found)
        host, port = server.url.removeprefix("http://").split(":")
        server.process.send_signal(number)
        thread.join(60)
        reasons = [choice["finish_reason"] for event in events("".join(found)) for choice in event["choices"]]
        assert reasons.count("length") == 8
        assert server.end() == 0
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((host, int(port)), timeout=5)


@pytest.mark.parametrize("hurry", [False, True])
def test_what_takes_too_long_is_ended(chat_model: Path, hurry: bool) -> None:
    """After the grace, or at a second signal; the client is told."""
    with started(str(chat_model), "--grace-seconds", "60" if hurry else "0.1", "-np", "1") as server:
        found: list[str] = []
        thread = stream(server.url, LONG, found)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: any("ending: 1 answers" in line for line in server.lines), "it says nothing")
        if hurry:
            server.process.send_signal(signal.SIGTERM)
        thread.join(30)
        assert server.end() == 0
        assert time.monotonic() - began < 30
        last = events("".join(found))[-1]
        assert (
            last.get("error", {}).get("code") == "closing" or last["choices"][0]["finish_reason"] == "length"
        )


def test_a_signal_while_it_loads(chat_model: Path) -> None:
    with started(str(chat_model)) as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.end() in (0, -signal.SIGTERM)  # before Python hears of signals, the system ends it


def refused(*arguments: str) -> str:
    done = subprocess.run([*CLARION, *arguments], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("clarion: ")
    return line


def test_a_port_in_use(chat_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"127.0.0.1:{port} is in use" in refused(str(chat_model), "--port", port)


def test_what_is_refused(chat_model: Path, tmp_path: Path) -> None:
    path = str(chat_model)
    (tmp_path / "bad.pem").write_text("no certificate")
    bad = str(tmp_path / "bad.pem")
    for arguments, said in (
        (["nowhere.gguf"], "nowhere.gguf"),
        ([path, "--host", "no.such.host.invalid"], "cannot be listened at"),
        ([path, "--port", "99999"], "port: found 99999"),
        ([path, "--parallel", "0"], "parallel: found 0"),
        ([path, "--memory-bytes", "much"], "expected bytes such as 8G"),
        ([path, "--memory-bytes", "1M"], "all models together may take"),
        ([path, "--cache-bytes", "1"], "cache_bytes: found 1"),
        ([path, "-c", "0"], "context: found 0"),
        ([path, "--models", "nowhere"], "nowhere: expected a folder"),
        ([path, path], "two models named 'tale'"),
        ([path, "--tls-cert", bad], "found one of them"),
        ([path, "--tls-cert", bad, "--tls-key", bad], "no certificate with its key"),
        ([path, "--tls-cert", "nowhere", "--tls-key", "nowhere"], "No such file"),
        ([path, "--api-key-file", "nowhere"], "nowhere"),
        ([path, "--temp", "-1"], "temperature: found -1.0"),
        ([path, "--chat-template-kwargs", "["], "no JSON"),
        ([path, "-p", "Hello"], "requests bring their texts"),
    ):
        assert said in refused(*arguments), arguments


def test_flags_of_other_servers(chat_model: Path) -> None:
    words = (
        "--ctx-size 128 -ngl 99 --jinja -cb --slots --webui --served-model-name x --max-num-seqs 2 --ssl-x"
    )
    assert "--ssl-x" in refused(str(chat_model), *words.split())
    with started(str(chat_model), *words.split()[:-1]) as server:
        (found,) = httpx.get(f"{server.url}/v1/models").json()["data"]
        assert (found["aliases"], found["context_length"]) == (["x"], 128)
    assert any("--webui: there is no such page yet" in line for line in server.lines)


def test_keys_come_from_everywhere(chat_model: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# of the team\nthree\n\nfour\n")
    arguments = [str(chat_model), "--api-key-file", str(tmp_path / "keys")]
    for more, environment, keys in (
        ([], {"CLARION_API_KEY": "one,two"}, ["one", "two", "three", "four"]),
        (["--api-key", "five"], {"CLARION_API_KEY": "one"}, ["five", "three", "four"]),
    ):
        with started(*arguments, *more, **environment) as server:
            url = f"{server.url}/v1/models"
            for key in keys:
                assert httpx.get(url, headers={"authorization": f"Bearer {key}"}).status_code == 200
            assert httpx.get(url, headers={"authorization": "Bearer six"}).status_code == 401


def test_other_machines_are_a_warning(chat_model: Path) -> None:
    for more, warns in ([], True), (["--api-key", "k"], False):
        with started(str(chat_model), "--host", "0.0.0.0", "--quiet", *more) as server:
            wait_until(lambda server=server, warns=warns: bool(server.lines) or not warns, "no warning")  # type: ignore[misc]
            time.sleep(0 if warns else 1)
            assert [("can be reached by other machines" in line) for line in server.lines] == [True] * warns


def test_https(chat_model: Path, tmp_path: Path) -> None:
    key, cert = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days",
         "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        capture_output=True,
        check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip(f"openssl makes no certificate: {made.stderr[-200:]!r}")
    with started(str(chat_model), "--tls-cert", cert, "--tls-key", key) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        assert url.startswith("https://")
        context = ssl.create_default_context(cafile=cert)
        with urllib.request.urlopen(f"{url}/v1/models", context=context, timeout=30) as answer:
            assert json.load(answer)["data"][0]["id"] == "tale"


def test_the_options_of_sampling_hold_for_requests(chat_model: Path) -> None:
    with started(str(chat_model), "--greedy", "-n", "5") as server:
        url = f"{server.url}/v1/completions"
        first, second = (httpx.post(url, json={"prompt": "Once"}).json() for _ in range(2))
        assert first["choices"] == second["choices"]
        assert first["usage"]["completion_tokens"] == 5
        assert (
            httpx.post(url, json={"prompt": "Once", "max_tokens": 2}).json()["usage"]["completion_tokens"]
            == 2
        )


def test_sizes() -> None:
    for text, size in (
        ("8G", 8 * 10**9),
        ("1.5GiB", 3 << 29),
        ("512m", 512 * 10**6),
        ("7", 7),
        ("2 KB", 2000),
    ):
        assert BYTES.convert(text, None, None) == size


def test_help_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["serve", "--help"]) == 0
    text = capsys.readouterr().out
    for name in ("--host", "--api-key", "-np, --parallel", "--temp", "-c, --context", "--log-text"):
        assert name in text
