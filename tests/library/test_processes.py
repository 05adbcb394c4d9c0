"""`clarion pull` in processes of its own: killed, interrupted, several at once, and what others find then."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.test_terminal import on_a_terminal
from tests.end_to_end.files import BUILT_IN
from tests.library.server import Repository, Server, sha256
from tests.library.test_pull import gguf, hub_cache

SIZE = 3_000_000


@pytest.fixture
def slow(server: Server) -> Server:
    """The file takes some seconds."""
    server.repositories["org/repo"] = Repository({"m-Q4_0.gguf": gguf(SIZE)})
    server.models["library/tiny:latest"] = gguf(SIZE)
    server.files["/files/m.gguf"] = gguf(SIZE)
    for word in ("content", "files"):
        server.hooks[word].append(lambda handler, data: handler.content(data, stall=0.05))
    return server


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "clarion", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clarion", *words],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )


def part(home: Path) -> int:
    """Bytes of the file that is being fetched."""
    sizes = [path.stat().st_size for path in home.rglob("*.incomplete")]
    return sizes[0] if sizes else 0


def wait_until_it_has(home: Path, n_bytes: int, process: subprocess.Popen[str]) -> None:
    while part(home) < n_bytes:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


@pytest.mark.parametrize("name", ["org/repo", "tiny", "ADDRESS"])
def test_killed_and_gone_on_with(slow: Server, home: Path, name: str) -> None:
    name = name.replace("ADDRESS", f"{slow.other}/files/m.gguf")
    stop = random.Random(name.partition("/")[0]).randrange(100_000, 2_000_000)
    process = start("pull", name)
    wait_until_it_has(home, stop, process)
    process.kill()
    process.communicate()
    whole = [path for path in home.rglob("*") if path.is_file() and path.read_bytes() == gguf(SIZE)]
    assert whole == []
    assert not list(home.rglob("*.gguf"))
    assert run("list", "--json").stdout == "[]\n"
    had = part(home)
    assert had >= stop
    slow.requests.clear()
    done = run("pull", name)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == gguf(SIZE)
    (content,) = slow.contents()
    assert content.headers["Range"] == f"bytes={had}-"
    assert part(home) == 0


def test_interrupted(slow: Server, home: Path) -> None:
    process = start("pull", "org/repo")
    wait_until_it_has(home, 200_000, process)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert said == "clarion: interrupted; what has come stays, and the same command goes on with it\n"
    assert part(home) >= 200_000


def test_two_at_once(slow: Server, home: Path) -> None:
    first = start("pull", "org/repo")
    wait_until_it_has(home, 100_000, first)
    second = start("pull", "org/repo")
    results = [process.communicate() for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], results
    assert results[0][0] == results[1][0]
    assert Path(results[0][0].strip()).read_bytes() == gguf(SIZE)
    assert "m-Q4_0.gguf: another process is fetching it; waiting" in results[1][1]
    assert len(slow.contents()) == 1


def test_the_second_goes_on_where_the_first_was_killed(slow: Server, home: Path) -> None:
    first = start("pull", "org/repo")
    wait_until_it_has(home, 500_000, first)
    second = start("pull", "org/repo")
    while len([r for r in slow.requests if "/api/models" in r.path]) < 2:
        time.sleep(0.01)
    first.kill()
    first.communicate()
    out, said = second.communicate()
    assert second.returncode == 0, said
    assert Path(out.strip()).read_bytes() == gguf(SIZE)
    assert len(slow.contents()) == 2
    assert "Range" in slow.contents()[1].headers


def test_many_at_once_with_killings(server: Server, home: Path) -> None:
    """Four processes fetch one file; one is killed whenever some of it has come, and another one starts."""
    server.repositories["org/repo"] = Repository({"m-Q4_0.gguf": gguf(SIZE)})
    slowly = [lambda handler, data: handler.content(data, stall=0.01)] * 20
    server.hooks["content"].extend(slowly)
    running = [start("pull", "org/repo") for _ in range(3)]
    for step in (300_000, 900_000, 1_800_000):
        while part(home) < step and any(process.poll() is None for process in running):
            time.sleep(0.005)
        victim = running.pop(0)
        victim.kill()
        victim.communicate()
        running.append(start("pull", "org/repo"))
    results = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], results
    assert {Path(out.strip()).read_bytes() for out, _ in results} == {gguf(SIZE)}
    assert list((hub_cache(home) / "models--org--repo/blobs").iterdir()) == [
        hub_cache(home) / "models--org--repo/blobs" / sha256(gguf(SIZE))
    ]


def test_what_was_pulled_runs_by_its_name(server: Server, home: Path) -> None:
    server.repositories["org/tale-GGUF"] = Repository({"tale-Q8_0.gguf": BUILT_IN.read_bytes()})
    text = ["-p", "Once upon a time", "-n", "5", "--greedy", "-t", "1"]
    expected = run("run", *text).stdout
    missing = run("run", "org/tale-GGUF", *text)
    assert missing.returncode == 2
    assert "to fetch it: clarion pull org/tale-GGUF" in missing.stderr
    assert server.requests == []
    fetched = run("run", "-hf", "org/tale-GGUF:q8_0", *text)
    assert (fetched.returncode, fetched.stdout) == (0, expected), fetched.stderr
    n = len(server.requests)
    for words in (
        ("run", "org/tale-GGUF"),
        ("run", "-m", "org/tale-GGUF:Q8_0"),
        ("run", "-hf", "org/tale-GGUF"),
        ("run", "-hf", "org/tale-GGUF", "-hff", "tale-Q8_0.gguf"),
        ("run", "hf.co/org/tale-GGUF"),
        ("run", "tale"),
        ("tale-q8_0.gguf",),
        ("tale",),
    ):
        done = run(*words, *text)
        assert (done.returncode, done.stdout) == (0, expected), (words, done.stderr)
    near = run("run", "org/tail-GGUF", *text)
    assert "is it org/tale-GGUF:Q8_0?" in near.stderr
    (listed,) = json.loads(run("list", "--json").stdout)
    assert (listed["name"], listed["source"]) == ("org/tale-GGUF:Q8_0", "hub")
    for words in (
        ("inspect", "tale"),
        ("tokenize", "tale", "x"),
        ("bench", "tale", "-p", "8", "-n", "2", "-r", "1"),
    ):
        assert run(*words).returncode == 0, words
    assert len(server.requests) == n
    server.files["/files/t.gguf"] = BUILT_IN.read_bytes()
    url = f"{server.other}/files/t.gguf"
    for words in (("run", "-mu", url), ("run", url), ("run", "t")):
        assert run(*words, *text).stdout == expected, words
    offline = run("run", "-hf", "org/other", *text, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE forbids to fetch it" in offline.stderr
    both = run("run", "-m", "tale", "-hf", "org/tale-GGUF", *text)
    assert "the model is given more than once" in both.stderr


def test_names_in_commands_that_make_and_measure(server: Server, home: Path) -> None:
    server.repositories["org/tale"] = Repository({"tale-Q8_0.gguf": BUILT_IN.read_bytes()})
    run("pull", "org/tale")
    Path("text.txt").write_text("There was once a miller who had three sons.\n" * 60)
    for words in (
        ("quantize", "org/tale", "small.gguf", "Q4_0", "--allow-requantize"),
        ("split", "org/tale", "parts.gguf", "--max-size", "4M"),
        ("eval", "org/tale", "--text", "text.txt", "-c", "64", "--chunks", "2"),
        ("eval", "-hf", "org/tale", "--reference", "tale", "--text", "text.txt", "-c", "64", "--chunks", "2"),
        ("imatrix", "org/tale", "text.txt", "-o", "i.gguf", "-c", "64", "--chunks", "2"),
        ("check", "-hf", "org/tale", "--quick"),
        ("show", "tale"),
    ):
        done = run(*words)
        assert done.returncode == 0, (words, done.stderr)
    code = "import clarion; print(clarion.load('org/tale:Q8_0', threads=1, context=64).path.name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "tale-Q8_0.gguf\n"


def test_a_terminal_shows_how_far_it_is(slow: Server, home: Path) -> None:
    code, seen = on_a_terminal("pull", "org/repo")
    assert code == 0
    seen = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", seen)
    assert re.search(r"m-Q4_0\.gguf .*\d\.\d/3\.0 MB.* [\d.]+ [kM]B/s.* \d:\d\d:\d\d", seen)
    assert seen.splitlines()[-1].startswith("clarion: org/repo:Q4_0, 3.0 MB: clarion run org/repo:Q4_0")


def test_a_terminal_is_asked_before_anything_is_removed(server: Server, home: Path) -> None:
    server.repositories["org/repo"] = Repository({"m-Q4_0.gguf": gguf()})
    path = Path(run("pull", "org/repo").stdout.strip())
    for typed in (b"n\n", b"\n", b"\x04"):
        code, seen = on_a_terminal("rm", "org/repo", typed=typed)
        assert code == 130
        assert "org/repo:Q4_0  100.0 kB  hub" in seen
        assert path.exists()
    code, seen = on_a_terminal("rm", "org/repo", typed=b"y\n")
    assert code == 0
    assert not path.exists()
