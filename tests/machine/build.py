"""Small programs for tests: buffers laid out one behind the other, operations in the order they are added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clarion.devices import native

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]


class Builder:
    """Collects a program's specification; `program` builds it."""

    def __init__(self, max_tokens: int = 8, max_outputs: int | None = None) -> None:
        self.max_tokens = max_tokens
        self.max_outputs = max_tokens if max_outputs is None else max_outputs
        self.spec: dict[str, Any] = {
            "arena_bytes": 0,
            "max_tokens": self.max_tokens,
            "max_outputs": self.max_outputs,
            "buffers": [],
            "weights": [],
            "ops": [],
        }

    def buffer(self, name: str, width: int, kind: str = "f32", rows: str = "tokens", slots: int = 1) -> int:
        n = {"tokens": self.max_tokens, "outputs": self.max_outputs, "slots": self.max_tokens * slots}[rows]
        self.spec["buffers"].append(
            {
                "name": name,
                "kind": kind,
                "rows": rows,
                "width": width,
                "offset": self.spec["arena_bytes"],
                "slots_per_token": slots,
            }
        )
        self.spec["arena_bytes"] += n * native().encoded_row_bytes(kind, width)
        return len(self.spec["buffers"]) - 1

    def weight(self, x: NDArray[np.float32], name: str = "w") -> int:
        """A float32 weight of one, two or three dimensions."""
        experts, rows, cols = (1, 1, 1, *x.shape)[-3:]
        data = np.ascontiguousarray(x, np.float32).view(np.uint8).reshape(-1)
        self.spec["weights"].append(
            {"name": name, "format": 0, "rows": rows, "cols": cols, "experts": experts, "data": data}
        )
        return len(self.spec["weights"]) - 1

    def op(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        weights: Sequence[int] = (),
        **given: Any,
    ) -> None:
        ints = {k: v for k, v in given.items() if isinstance(v, int)}
        floats = {k: v for k, v in given.items() if isinstance(v, float)}
        arrays = {k: v for k, v in given.items() if isinstance(v, list)}
        self.spec["ops"].append(
            {
                "op": name,
                "inputs": list(inputs),
                "outputs": list(outputs),
                "weights": list(weights),
                "ints": ints,
                "floats": floats,
                "arrays": arrays,
            }
        )

    def program(self, threads: int = 1) -> Any:
        return native().Program(native().Machine(threads), self.spec)


def run(
    program: Any,
    n: int,
    *,
    cache: Any = None,
    tokens: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    sequences: Sequence[int] | None = None,
    pages: Sequence[Sequence[int]] = ((),),
    outputs: Sequence[int] = (),
) -> bool:
    """Runs n tokens: by default token 0 at positions 0, 1, ... of sequence 0."""
    done: bool = program.run(
        cache,
        np.array(range(n) if tokens is None else tokens, np.int32) * (tokens is not None),
        np.array(range(n) if positions is None else positions, np.int32),
        np.zeros(n, np.int32) if sequences is None else np.array(sequences, np.int32),
        np.array(pages, np.int32).reshape(len(pages), -1),
        np.array(outputs, np.int32),
    )
    return done
