"""Put load on Clarion's server, on llama-server, and on Clarion without HTTP, in turns.

    python benchmarks/serve.py MODEL... --llama-server PROGRAM --users 1,4,16,64 --json FILE

So many users at once ask for completions that stream; `served_work.py` says for which. Every engine gets
the same requests in the same order, with room for all users at once, and its own defaults for all but the
numbers of threads and users. Every measurement is a server, and a process that asks, of its own; a round
takes all engines in turn, every second round backwards. "Clarion in process" answers the same requests
through Python's streams: what the server is behind it, HTTP costs.

Prints a table in Markdown for each model, under a head that says of which processor, day and versions it
is. `--json` keeps every single measurement. All tokens/s are those of all users over the whole run.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from compare_table import markdown
from measured_work import numbers
from served_work import CONTEXT, Ask, mix, write
from this_machine import disturbance, processor, watched

import clarion
from clarion.tokenizer import Tokenizer

HERE = Path(__file__).parent
PATIENCE = 120  # seconds in which a server has to start


@dataclass(slots=True)
class Engine:
    """Something that answers requests.

    Attributes:
        command: with `{port}` a server; without, a program that answers all of `{asks}` and prints how it
            went.
        rounds: what was measured.
    """

    name: str
    model: str
    users: int
    command: list[str]
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def measure(self, asks: Path) -> None:
        """Measures once more."""
        found, others = watched(lambda: self._answered(asks))
        self.rounds.append({"date": datetime.now(UTC).date().isoformat(), "others": others, **found})

    def _answered(self, asks: Path) -> dict[str, float]:
        if not any("{port}" in word for word in self.command):
            return _printed([word.format(asks=asks) for word in self.command])
        with serving(self.command) as (port, process):
            load = [sys.executable, str(HERE / "load_server.py")]
            with tempfile.TemporaryDirectory() as folder:
                warm = Path(folder) / "warm.json"
                write(warm, [Ask("Once", 16)])
                _printed([*load, str(warm), str(port)])
            before, loop = cpu_seconds(process.pid), loop_seconds(process.pid)
            found = _printed([*load, str(asks), str(port), "--users", str(self.users)])
            return {
                **found,
                "server_cpu_seconds": cpu_seconds(process.pid) - before,
                "server_loop_seconds": loop_seconds(process.pid) - loop,
            }


def _printed(command: list[str]) -> dict[str, float]:
    """What a program of ours prints.

    Raises:
        SystemExit: it failed; its own message stands above.
    """
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"failed: {' '.join(command)}")
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@contextmanager
def serving(command: list[str]) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A server at a free port, from the time at which it lists its models until the block ends.

    Raises:
        SystemExit: it ended, or did not start in time.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [word.format(port=port) for word in command]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + PATIENCE
            while not _is_ready(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    message = log.read().decode(errors="replace")[-2000:]
                    raise SystemExit(f"{' '.join(words)} did not start:\n{message}")
                time.sleep(0.1)
            yield port, process
        finally:
            process.terminate()
            process.wait()


def _is_ready(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            request = f"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
            connection.sendall(request.encode())
            return b" 200 " in connection.recv(64)
    except OSError:
        return False


def cpu_seconds(pid: int) -> float:
    """Seconds that all threads of a process had processors for, so far, in whole ticks of the system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def loop_seconds(pid: int) -> float:
    """The same of its first thread, which is where Clarion's server has its event loop."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def engines(model: str, users: int, arguments: argparse.Namespace) -> list[Engine]:
    """What is compared, peers first."""
    threads = ["-t", str(arguments.threads)]
    found = []
    if arguments.llama_server:
        command = [arguments.llama_server, "-m", model, "-c", str(CONTEXT * users), "-np", str(users)]
        found.append(Engine("llama-server", model, users, [*command, *threads, "--port", "{port}"]))
    for activations in arguments.activations.split(","):
        same = [*threads, "--activations", activations]
        serve = [sys.executable, "-m", "clarion", "serve", model, "-c", str(CONTEXT), "-np", str(users)]
        serve += [*same, "--port", "{port}"]
        replay = [sys.executable, str(HERE / "replay_asks.py"), "{asks}", model, "--users", str(users), *same]
        found.append(Engine(f"Clarion {activations}", model, users, serve))
        found.append(Engine(f"Clarion {activations} in process", model, users, replay))
    return found


def measure(turns: list[Engine], asks: Path, rounds: int, keep: Callable[[], None]) -> None:
    """Gives every engine so many rounds; after each, `keep` is called."""
    for number in range(rounds):
        for engine in turns if number % 2 == 0 else reversed(turns):
            engine.measure(asks)
            keep()
            print(
                f"round {number + 1}: {Path(engine.model).name}, {engine.users} users, {engine.name}: "
                f"{engine.rounds[-1]['rate']:.1f} tokens/s in {engine.rounds[-1]['seconds']:.1f} s",
                file=sys.stderr,
            )


def table(turns: list[Engine]) -> str:
    """Of one model: medians of the rounds, rates with the least and the greatest."""
    rows = []
    for engine in turns:
        beside = [other for other in turns if other.users == engine.users]
        rates = sorted(of(engine, "rate"))
        spread = f" ({rates[0]:.1f} to {rates[-1]:.1f})" if len(rates) > 1 else ""
        row = [str(engine.users), engine.name, f"{median(rates):.1f}{spread}", _ratio(engine, beside[0])]
        row.append(f"{median(of(engine, 'prompt_rate')):.1f}")
        row += [f"{median(of(engine, name)):.2f}" for name in ("first_p50", "first_p99")]
        row += [f"{median(of(engine, name)) * 1000:.1f}" for name in ("between_p50", "between_p99")]
        asking = median([each["cpu_seconds"] / each["seconds"] for each in engine.rounds])
        rows.append([*row, "" if engine.name.endswith("in process") else f"{asking:.1%}"])
    head = ["users", "engine", "tokens/s", "to the first", "prompt tokens/s"]
    head += ["first token p50, s", "p99", "between tokens p50, ms", "p99", "who asks"]
    return markdown(head, rows, 2)


def of(engine: Engine, name: str) -> list[float]:
    return [float(each[name]) for each in engine.rounds]


def _ratio(engine: Engine, first: Engine) -> str:
    return "" if engine is first else f"×{median(of(engine, 'rate')) / median(of(first, 'rate')):.2f}"


def versions(arguments: argparse.Namespace) -> dict[str, str]:
    found = {"Clarion": clarion.__version__}
    if arguments.llama_server:
        done = subprocess.run([arguments.llama_server, "--version"], capture_output=True, text=True)
        words = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("version")]
        found["llama-server"] = words[0].removeprefix("version: ") if words else "unknown"
    return found


def keep(measured: list[Engine], arguments: argparse.Namespace) -> None:
    """Writes down what is measured so far: a long run may be interrupted."""
    if arguments.json is None:
        return
    entries = [
        {"name": each.name, "model": Path(each.model).name, "users": each.users, "rounds": each.rounds}
        for each in measured
    ]
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor(),
        "versions": versions(arguments),
        "seed": arguments.seed,
        "engines": entries,
    }
    arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="GGUF files")
    parser.add_argument("--llama-server", help="the program")
    parser.add_argument("--users", type=numbers, default=[1, 4, 16, 64], help="(default: 1,4,16,64)")
    parser.add_argument("--requests", type=int, help="in all (default: 16, and one for each user at least)")
    parser.add_argument("--activations", default="high,fast", help="Clarion's (default: %(default)s)")
    parser.add_argument("-t", "--threads", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("-r", "--rounds", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the mix (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="where every measurement goes")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # no server stays behind
    measured: list[Engine] = []
    tables = []
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            tokenizer = Tokenizer.from_gguf(model)
            of_model: list[Engine] = []
            for users in arguments.users:
                asks = Path(folder) / "asks.json"
                write(asks, mix(tokenizer, arguments.requests or max(16, users), arguments.seed))
                turns = engines(model, users, arguments)
                measured += turns
                of_model += turns
                measure(turns, asks, arguments.rounds, partial(keep, measured, arguments))
            tables.append(f"{Path(model).stem}:\n\n{table(of_model)}")
    known = versions(arguments)
    days = sorted({each["date"] for engine in measured for each in engine.rounds})
    head = [
        f"{processor()}, {' to '.join(dict.fromkeys((days[0], days[-1])))}, {arguments.threads} threads:",
        "",
    ]
    head += [f"- {name}: {version}" for name, version in known.items()]
    head.append(f"- {disturbance(each['others'] for engine in measured for each in engine.rounds)}")
    print("\n".join(head), *tables, sep="\n\n")


if __name__ == "__main__":
    main()
