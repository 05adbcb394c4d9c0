"""Which part of each weight a thread reads, so that its copy can lie near to that thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence


def shares(
    sizes: Mapping[str, int],
    together: Iterable[Sequence[str]],
    threads: int,
    unit: Callable[[str], int],
) -> dict[str, tuple[slice, ...]]:
    """For each weight, the bytes that each thread reads when one token comes.

    An operation takes the bytes of its weights, one weight after the other, and cuts them into as many parts
    as there are threads (`Panels` in native/kernels/linear.cpp): of two matrices that are read `together` the
    first may belong to one half of the threads. What no operation reads with others is cut alone. A `unit`,
    so many bytes of a weight, belongs to the part that it begins in.
    """
    result: dict[str, tuple[slice, ...]] = {}
    for group in [*together, *([name] for name in sizes)]:
        if any(name in result or name not in sizes for name in group):
            continue
        total, begin = sum(sizes[name] for name in group), 0
        ends = [total * t // threads for t in range(threads + 1)]
        for name in group:
            size, step = sizes[name], unit(name)
            within = [min(max(-(-(end - begin) // step) * step, 0), size) for end in ends]
            result[name] = tuple(map(slice, within, within[1:]))
            begin += sizes[name]
    return result
