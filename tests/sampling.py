"""What a run without `--all` leaves out: most cases of large grids, and tests that take long.

- `@pytest.mark.sample` runs so few cases that each value of each parameter is still there (each format, each
  instruction set, each shape), in combinations that a seed chooses. `@pytest.mark.sample(5)` runs five, which
  have as many of the values as five can.
- `@pytest.mark.full` runs only with `--all`.

The seed is that of the commit: all runs of a commit test the same, and the next commit tests something else.
"""

from __future__ import annotations

import hashlib
import random
import subprocess
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path


def seed_of_commit(folder: Path) -> str:
    """Return the first digits of the commit that is checked out; 0 where there is no history."""
    try:
        command = ["git", "-C", folder, "rev-parse", "--short=12", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "0"
    return done.stdout.strip() or "0"


def sample(cases: Sequence[Mapping[str, Hashable]], number: int | None, seed: str) -> list[int]:
    """Return which of the cases to run, in their order.

    Args:
        cases: for each, the values of its parameters.
        number: how many to return, if there are so many; None: as few as have all values.
        seed: what chooses among the combinations; the same for the same test in any order of tests.
    """
    order = list(range(len(cases)))
    digest = hashlib.sha256(seed.encode()).digest()
    random.Random(int.from_bytes(digest[:8], "big")).shuffle(order)
    missing = {pair for case in cases for pair in case.items()}
    chosen: list[int] = []
    while missing and (number is None or len(chosen) < number):
        best = max(order, key=lambda index: len(missing & cases[index].items()))  # the first of equals
        chosen.append(best)
        missing -= cases[best].items()
    if number is not None:
        chosen += [index for index in order if index not in set(chosen)][: number - len(chosen)]
    return sorted(chosen)
