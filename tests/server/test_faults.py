"""What goes wrong around a server: clients that vanish, processes that are killed, disks that are full."""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from clarion.server.call import Call
from clarion.server.events import Events
from clarion.server.leaving import Watch
from clarion.server.pool import Served
from clarion.server.run import Running
from clarion.server.writing import Job
from tests.server.processes import started
from tests.server.servers import client, events, is_idle, post, running, wait_until

TEXT = "/v1/completions"
HELLO = [{"role": "user", "content": "Hello"}]
SEED = 20261201
REQUESTS: tuple[tuple[str, dict[str, Any]], ...] = (
    (TEXT, {"prompt": "Once upon a time", "max_tokens": 200, "stream": True, "n": 2}),
    (TEXT, {"prompt": ["Once", "There was"], "max_tokens": 200}),
    (TEXT, {"prompt": "Once upon a time " * 20, "max_tokens": 0, "echo": True, "logprobs": 1}),
    ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 200, "stream": True}),
    ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 200, "thinking_budget": 5}),
    ("/v1/embeddings", {"input": ["a cat and a king " * 20] * 40}),
    ("/v1/rerank", {"query": "a cat", "documents": ["a king " * 20] * 40}),
    ("/completion", {"prompt": "Once", "n_predict": 200, "stream": True}),
    ("/apply-template", {"messages": HELLO}),
)


def is_right(server: Running) -> bool:
    """Whether an ordinary request gets what Python writes, and everything is given up afterwards."""
    model = server.server.pool.find("tale").model
    assert model is not None
    with client(server) as http:
        found = http.post(TEXT, json={"prompt": "Once", "max_tokens": 9, "temperature": 0}).json()
    wait_until(lambda: is_idle(server), "something is left")
    figures = model.figures
    assert figures.cache_bytes_used == figures.cache_bytes_retained
    return bool(found["choices"][0]["text"] == model.generate("Once", max_tokens=9, greedy=True).text)


def n_of_requests() -> Counter[str]:
    """What belongs to single requests and is alive."""
    gc.collect()
    kinds = (Call, Watch, Events, Job)
    return Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, kinds))


def n_files() -> int:
    return len(os.listdir("/proc/self/fd"))


# ---- clients ----------------------------------------------------------------------------------------------


def test_clients_that_vanish(server: Running, pytestconfig: pytest.Config) -> None:
    """At any moment, by closing, or by a reset that forgets what is on its way."""
    print(f"seed {SEED}")
    draw = random.Random(SEED)
    told = [
        (draw.choice(REQUESTS), draw.random() * draw.choice((0.0, 0.02, 0.2)), draw.random() < 0.5)
        for _ in range(500 if pytestconfig.getoption("--all") else 100)
    ]

    def vanish(each: tuple[tuple[str, dict[str, Any]], float, bool]) -> None:
        (path, body), seconds, is_reset = each
        with post(server, path, body) as connection:
            time.sleep(seconds)
            if is_reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    assert is_right(server)
    files = n_files()
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(vanish, told))
    wait_until(lambda: is_idle(server), "something is left")
    assert is_right(server)
    wait_until(lambda: n_files() <= files, "connections are left")
    wait_until(lambda: not n_of_requests(), "requests are left")


def test_who_reads_slowly_holds_nobody_back(chat_model: Path) -> None:
    """One client reads nothing; another one's stream comes to its end, and then the first gets all of its
    own."""
    asked = {"prompt": "Once", "max_tokens": 400, "ignore_eos": True, "logprobs": 100, "n": 6,
             "temperature": 0, "stream": True}  # fmt: skip
    with running([Served("tale", chat_model)], context=512) as server, client(server) as http:
        whole = http.post(TEXT, json={**asked, "stream": False, "n": 1, "logprobs": None}).json()
        with post(server, TEXT, asked) as slow:
            wait_until(lambda: bool(server.server.running), "it does not begin")
            quick = events(http.post(TEXT, json={**asked, "n": 1, "logprobs": None}).text)
            assert "".join(each["choices"][0]["text"] for each in quick) == whole["choices"][0]["text"]
            wait_until(lambda: len(server.server.running) < 2, "the quick one has not ended")
            assert server.server.running, "the slow one did not wait"
            received = b""
            while not received.endswith(b"0\r\n\r\n"):
                data = slow.recv(1 << 16)
                assert data, "its stream ended too early"
                received += data
        texts = [""] * 6
        for line in received.decode().splitlines():
            if line.startswith("data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    texts[choice["index"]] += choice["text"]
        assert texts == [whole["choices"][0]["text"]] * 6
        assert is_right(server)


def test_no_http(server: Running) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    for sent in (b"HELLO\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9\r\n\r\n"):
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(sent)
            received = b""
            while data := connection.recv(4096):
                received += data
        head, _, content = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert json.loads(content)["error"]["code"] == "invalid_http"


def test_an_offer_of_http_2(server: Running) -> None:
    """As Java's client and `curl --http2` make it: the answer is one of HTTP/1.1."""
    offer = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAEAAEAAAAIAAAAB"}
    with client(server) as http:
        for _ in range(2):
            answer = http.post(TEXT, json={"prompt": "Once", "max_tokens": 2}, headers=offer)
            assert (answer.status_code, answer.json()["usage"]["completion_tokens"]) == (200, 2)


# ---- the process ------------------------------------------------------------------------------------------


def test_killed(chat_model: Path) -> None:
    """The client sees an error, no end; the port is free for the next one."""
    asked: Any = {"model": "tale", "prompt": "Once", "max_tokens": 1900}
    with started(str(chat_model)) as server:
        url = server.url
        ai = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        stream = iter(ai.completions.create(**asked, n=8, stream=True, extra_body={"ignore_eos": True}))
        assert next(stream).choices
        os.kill(server.process.pid, signal.SIGKILL)
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, openai.APIConnectionError)):
            list(stream)
    with started(str(chat_model), "--port", url.rpartition(":")[2]) as server:
        assert server.url == url
        assert httpx.post(f"{url}{TEXT}", json={"prompt": "Once", "max_tokens": 1}).is_success


def test_memory_stays(chat_model: Path, pytestconfig: pytest.Config) -> None:
    """Many short requests. What a request makes (its body, task, tokens, pieces, answer and connection) is
    more than 10 kB: if each left that much, it would be seen."""
    n = 5000 if pytestconfig.getoption("--all") else 400
    bodies = [
        ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 4}),
        (TEXT, {"prompt": "Once upon", "max_tokens": 4, "stream": True}),
        ("/v1/embeddings", {"input": "a cat"}),
        (TEXT, {"prompt": "Once", "temperature": -1}),
        ("/nowhere", {}),
    ]
    # With one arena the C library's own caches do not hide what is left.
    with started(
        str(chat_model), "-c", "64", "--cache-bytes", "8M", "-t", "1", MALLOC_ARENA_MAX="1"
    ) as server:
        status = Path(f"/proc/{server.process.pid}/status")
        url = server.url

        def rounds(count: int) -> int:
            """The memory that the process has for itself, in bytes, after so many requests."""
            for number in range(count):
                path, body = bodies[number % len(bodies)]
                post = httpx.post if number % 50 == 0 else http.post  # a new connection now and then
                post(url + path, json=body)
            found = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
            return int(found.split()[1]) * 1024

        with httpx.Client() as http:
            before = rounds(300)
            grown = rounds(n) - before
        assert grown < n * 10_000, f"{grown} bytes after {n} requests"


# ---- nothing leaves the machine ---------------------------------------------------------------------------

# Python calls this for each connection and each name that is looked up.
HOOK = """
import os, sys
def hear(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        with open(os.environ["HEARD"], "a") as file:
            print(event, arguments[0 if event == "socket.getaddrinfo" else 1], file=file)
sys.addaudithook(hear)
"""
SCRIPT = """
import json, subprocess, sys, re, urllib.request
model, word = sys.argv[1:]
clarion = [sys.executable, "-m", "clarion"]
def run(*words, **more):
    command = [*clarion, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, **more).stdout
short = ("-n", "4", "--greedy", "-t", "1", "-c", "256")
written = run("run", model, f"The {word}", *short)
said = run("chat", model, *short, input=f"The {word}\\n")
server = subprocess.Popen([*clarion, "serve", model, "--port", "0", "-t", "1", "-c", "256"],
                          stderr=subprocess.PIPE, text=True)
log = []
for line in server.stderr:
    log.append(line)
    if found := re.search("listening at (\\\\S+) ", line):
        break
messages = [{"role": "user", "content": f"The {word}"}]
body = json.dumps({"messages": messages, "max_tokens": 4, "temperature": 0})
for path in ("/v1/chat/completions", f"/v1/{word}"):
    try:
        answer = urllib.request.urlopen(found[1] + path, body.encode()).read()
        answered = json.loads(answer)["choices"][0]["message"]["content"]
    except urllib.error.HTTPError as error:
        assert error.code == 404
server.terminate()
log += server.stderr
print(json.dumps([written, said, answered, "".join(log)]))
"""


def test_without_a_network(chat_model: Path, tmp_path: Path) -> None:
    """With nothing but this machine's own addresses everything works, no other one is asked for, and the log
    has nothing of the texts."""
    alone = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("unshare and ip are not here")
    if (done := subprocess.run([*alone, "true"], capture_output=True, text=True, check=False)).returncode:
        pytest.skip(f"no network of its own can be made here: {done.stderr.strip()}")
    (tmp_path / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
    heard = tmp_path / "heard"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)]),
        "HEARD": str(heard),
        "XDG_STATE_HOME": str(tmp_path),
    }
    done = subprocess.run(
        [*alone, sys.executable, "-c", SCRIPT, str(chat_model), "xylophonist"],
        env=environment, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    written, said, answered, log = json.loads(done.stdout)
    assert written.strip()
    assert said.strip() == answered.strip() != ""
    assert "POST /v1/chat/completions 200" in log
    assert "xylophonist" not in log.replace("/v1/xylophonist", "")
    for text in (answered, written):
        assert text.strip() not in log
    lines = heard.read_text(encoding="utf-8").splitlines()
    assert lines, "the request was not heard"
    assert all("127.0.0.1" in line for line in lines), lines


# ---- no room on the disk ----------------------------------------------------------------------------------

# In a file system of 64 KiB: a slot is saved, and prefixes are kept.
FULL = """
import json, os, sys, warnings
from pathlib import Path
import clarion, httpx
from clarion.server.pool import Served
from tests.server.servers import client, running, wait_until
model, folder = Path(sys.argv[1]), sys.argv[2]
asked = {"prompt": "Once upon a time there was a king " * 30, "max_tokens": 9, "temperature": 0}
with running([Served("tale", model)], context=512, slot_save_path=folder) as server, client(server) as http:
    def text():
        return http.post("/v1/completions", json={**asked, "id_slot": 0}).json()["choices"][0]["text"]
    first = text()
    saved = http.post("/slots/0?action=save", json={"filename": "mine"})
    print(json.dumps([first, text(), saved.status_code, saved.json(), os.listdir(folder)]))
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    with clarion.load(model, prefix_dir=os.path.join(folder, "prefixes"), threads=1) as loaded:
        found = loaded.generate(asked["prompt"], max_tokens=9, greedy=True).text
        wait_until(lambda: bool(heard), "nobody was warned")
print(json.dumps([found, [str(each.message) for each in heard]]))
"""


def test_a_full_disk(chat_model: Path, tmp_path: Path) -> None:
    """What cannot be saved is an error that says so, and answers stay right."""
    alone = [
        "unshare",
        "-rm",
        "sh",
        "-c",
        'mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"',
        str(tmp_path),
    ]
    if not shutil.which("unshare"):
        pytest.skip("unshare is not here")
    if (done := subprocess.run([*alone, "true"], capture_output=True, text=True, check=False)).returncode:
        pytest.skip(f"no file system of its own can be mounted here: {done.stderr.strip()}")
    done = subprocess.run(
        [*alone, sys.executable, "-c", FULL, str(chat_model), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    of_server, of_python = map(json.loads, done.stdout.splitlines())
    first, again, status, refused, left = of_server
    assert (first, status, left) == (again, 500, [])
    assert refused["error"]["code"] == "session_file"
    assert refused["error"]["message"].startswith("mine: cannot be written: No space left on device")
    assert str(tmp_path) not in refused["error"]["message"]
    text, heard = of_python
    assert text == first
    assert any("a prefix is not kept" in each and "No space left" in each for each in heard), heard
