"""What the server adds to the engine: processor time for each request, and for each piece of a stream.

    python benchmarks/serve_costs.py [--rounds 3] [--json FILE]

Requests of one token, and long streams, of the model that comes with Clarion, on one thread: once through
HTTP, once through Python's streams in a process of its own, in turns. The processor time of the server's
process, less that of the other, goes by the number of requests or of pieces. What the kernel does for the
server's end of the connections is in it, and what the client does is not. Where other programs run beside
it, what the model itself takes differs by more than the server adds: then the event loops, which do the
server's work, say more than all threads together.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from compare_table import markdown
from serve import HERE, Engine
from served_work import CONTEXT, Ask, mix, write
from this_machine import disturbance, processor

from clarion.programs import open_file
from clarion.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of work: `count` is the figure that its costs are divided by."""

    name: str
    count: str
    asks: list[Ask]
    users: int


def cases() -> list[Case]:
    with open_file(None) as file:
        tokenizer = Tokenizer.from_metadata(file.metadata)
    short = [Ask(ask.prompt, 1) for ask in mix(tokenizer, 300, 0, (20, 40))]
    long = [Ask(ask.prompt, CONTEXT - 100) for ask in mix(tokenizer, 6, 0, (20, 40))]
    return [
        Case("request of one token, 1 user", "requests", short, 1),
        Case("request of one token, 4 users", "requests", short, 4),
        Case("piece, 1 stream", "pieces", long[:2], 1),
        Case("piece, 4 streams", "pieces", long[2:], 4),
    ]


def engines(case: Case) -> tuple[Engine, Engine]:
    """The server, and the same work without it."""
    many = str(case.users)
    serve = [sys.executable, "-m", "clarion", "serve", "-np", many, "-c", str(CONTEXT), "-t", "1"]
    serve += ["--activations", "high", "--port", "{port}"]
    replay = [sys.executable, str(HERE / "replay_asks.py"), "{asks}", "--users", many, "-t", "1"]
    return Engine("server", "", case.users, serve), Engine("in process", "", case.users, replay)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, help="where every measurement goes")
    arguments = parser.parse_args()
    rows, report = [], []
    others: list[float | None] = []
    with tempfile.TemporaryDirectory() as folder:
        asks = Path(folder) / "asks.json"
        for case in cases():
            write(asks, case.asks)
            server, direct = engines(case)
            for number in range(arguments.rounds):
                for engine in (server, direct) if number % 2 == 0 else (direct, server):
                    engine.measure(asks)
            row = [case.name]
            for of in ("cpu_seconds", "loop_seconds"):
                through = median(each[f"server_{of}"] / each[case.count] for each in server.rounds) * 1e6
                alone = median(each[of] / each[case.count] for each in direct.rounds) * 1e6
                row += [f"{through:.0f}", f"{alone:.0f}", f"{through - alone:.0f}"]
            rows.append(row)
            report.append({"case": case.name, "server": server.rounds, "in process": direct.rounds})
            others += [each["others"] for engine in (server, direct) for each in engine.rounds]
    if arguments.json:
        found = {"processor": processor(), "cases": report}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{processor()}; {disturbance(others)}; processor time in µs:\n")
    head = ["one", "server", "in process", "added", "its event loop", "in process", "added"]
    print(markdown(head, rows, 1))


if __name__ == "__main__":
    main()
