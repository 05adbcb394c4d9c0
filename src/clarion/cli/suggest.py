"""What somebody may have meant by a name that does not exist."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name that differs from `word` by the fewest letters, if these are few, without dashes and case.

    A third of the letters may be wrong, missing, too many or exchanged with the next; in words of up to two
    letters none. Beginnings of exactly one name stand for it.
    """
    wanted, known = _bare(word), {name: _bare(name) for name in names}
    distances = {name: _distance(wanted, bare) for name, bare in known.items()}
    # Of several, one of as many letters: a wrong letter is commoner than a missing one.
    best = min(distances, key=lambda name: (distances[name], abs(len(name) - len(word))), default=None)
    if best is not None and distances[best] <= len(wanted) // 3:
        return best
    begun = [name for name, bare in known.items() if len(wanted) > 2 and bare.startswith(wanted)]
    return begun[0] if len(begun) == 1 else None


def _bare(name: str) -> str:
    return name.lstrip("-").replace("_", "-").lower()


def _distance(a: str, b: str) -> int:
    """Insertions, deletions, substitutions and exchanges of neighbours, each pair of letters changed once."""
    before, previous = [0] * (len(b) + 1), list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        current = [i]
        for j, other in enumerate(b, 1):
            cost = min(previous[j] + 1, current[-1] + 1, previous[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                cost = min(cost, before[j - 2] + 1)
            current.append(cost)
        before, previous = previous, current
    return previous[-1]
