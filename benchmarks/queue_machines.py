"""Machines as the queue sees them: cores, what they share, and what a cache line costs between them.

What is measured of one core is in `Costs`; a kind of machine says how its cores differ from that one. Rates
of memory are round figures of such machines: two channels of DDR5 give a desktop 60 to 80 GB/s, eight to
twelve a server 250 to 560 GB/s; a single core reads 12 to 35 GB/s of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from queue_items import Item

GB = 1e9


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds, unless stated otherwise: what `queue_costs.py` measures.

    The defaults are those of a Zen 5 (AVX-512 BF16, virtual, 2 cores), 2026-12-01; those of handing out are
    of an hour in which its cores were as far apart as cores of one socket commonly are. Not measured:
    `store`, of which the processor has several under way while a line comes from another core, and `probe`, a
    load that runs ahead in the same way; each a fraction of a transfer. Nor `migrate`.
    """

    take: float = 19e-9
    transfer: float = 71e-9  # of a count's cache line, from another core
    handoff: float = 769e-9
    wake_call: float = 2.9e-6
    wake_latency: float = 7.9e-6
    spin: float = 30e-6  # native/machine/pool.cpp
    store: float = 15e-9  # of a lane's next item or a group's count, when an operation is published
    probe: float = 15e-9  # of a lane that is empty
    migrate: float = 20e-6  # of a thread that waits for its core to one that sleeps
    decode: float = 8e-12
    multiply: float = 371e9  # products of bytes a second
    fused: float = 13.7e-12
    elements: Mapping[str, float] = field(
        default_factory=lambda: {
            "embed": 2.05e-9,
            "select": 0.41e-9,
            "rope_table": 0.32e-9,
            "rms_norm": 0.65e-9,
            "rope_kv": 0.90e-9,
            "encode": 0.67e-9,
            "swiglu": 0.58e-9,
        }
    )

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> Self:
        """What `queue_costs.py` wrote; what is not known here is left out."""
        return cls(**{f.name: found[f.name] for f in fields(cls) if f.name in found})

    def free(self) -> Costs:
        """The same items, handed out for nothing."""
        nothing = dict.fromkeys(
            ("take", "transfer", "handoff", "wake_call", "wake_latency", "store", "probe", "migrate"), 0.0
        )
        return Costs(**{f.name: nothing.get(f.name, getattr(self, f.name)) for f in fields(self)})

    def with_rows(self, times: float) -> Costs:
        """Operations on rows take so many times as long."""
        return replace(self, elements={op: times * seconds for op, seconds in self.elements.items()})

    def seconds(self, op: str, item: Item) -> float:
        """Of one item on the measured core, memory left out."""
        others = max(self.elements.values())
        return (
            item.weights * self.decode
            + item.products / self.multiply
            + item.fused * self.fused
            + item.elements * self.elements.get(op, others)
        )


@dataclass(frozen=True, slots=True)
class Core:
    """Where one thread runs.

    Attributes:
        speed: beside the measured core.
        bandwidth: bytes a second that it reads at most.
        node: of memory that is near.
        shared_with: the thread on the same core; -1: none.
    """

    speed: float = 1.0
    bandwidth: float = 30 * GB
    node: int = 0
    shared_with: int = -1


@dataclass(frozen=True, slots=True)
class Machine:
    """Some threads and the memory that they share.

    Attributes:
        cores: of each thread.
        bandwidth: of each node, bytes a second.
        remote: of its bandwidth that a core has to another node's memory.
        far: how many times as long a cache line takes from another node.
        slice: seconds for which another process has the last thread's core, and then for which it has not;
            0: there is none.
        one_node: whether all weights lie on the first node.
    """

    name: str
    cores: tuple[Core, ...]
    bandwidth: tuple[float, ...]
    remote: float = 0.6
    far: float = 3.0
    slice: float = 0.0
    one_node: bool = False

    @property
    def threads(self) -> int:
        return len(self.cores)

    @property
    def speed(self) -> float:
        """Of all cores, beside the measured one: siblings share one."""
        whole = sum(core.speed / (1 if core.shared_with < 0 else 2) for core in self.cores)
        return whole - (self.cores[-1].speed / 2 if self.slice else 0)

    @property
    def most_bandwidth(self) -> float:
        """Bytes a second at most, of all nodes and for all cores."""
        cores = sum(core.bandwidth / (1 if core.shared_with < 0 else 2) for core in self.cores)
        cores -= self.cores[-1].bandwidth / 2 if self.slice else 0
        return min(cores, sum(self.bandwidth))

    def ideal(self, seconds: float, n_bytes: float) -> float:
        """The least time for work of so many seconds on the measured core that reads so many bytes."""
        return max(seconds / self.speed, n_bytes / self.most_bandwidth)


def alike(name: str, n: int, bandwidth: float, core: float, nodes: int = 1, **more: Any) -> Machine:
    """n equal cores, shared out between nodes, each with so much bandwidth."""
    cores = tuple(Core(1.0, core * GB, t * nodes // n) for t in range(n))
    return Machine(name, cores, (bandwidth * GB,) * nodes, **more)


def siblings(name: str, cores: int, bandwidth: float, core: float) -> Machine:
    """Two threads on each core: thread t and t + cores, as Linux numbers them."""
    of = [Core(1.0, core * GB, 0, (t + cores) % (2 * cores)) for t in range(2 * cores)]
    return Machine(name, tuple(of), (bandwidth * GB,))


def hybrid(name: str, fast: int, slow: int, bandwidth: float, speed: float) -> Machine:
    """Fast cores first."""
    cores = [Core(1.0, 30 * GB)] * fast + [Core(speed, 12 * GB)] * slow
    return Machine(name, tuple(cores), (bandwidth * GB,))


MACHINES = (
    alike("2 cores", 2, 65, 35),
    alike("8 cores", 8, 65, 30),
    siblings("8 cores, 16 threads", 8, 65, 30),
    hybrid("8 fast, 16 slow", 8, 16, 80, 0.5),
    alike("8 cores, one taken", 8, 65, 30, slice=3e-3),
    alike("32 cores", 32, 250, 20),
    alike("64 cores", 64, 350, 20),
    alike("128 cores", 128, 560, 15),
    alike("2 nodes of 32", 64, 250, 20, 2),
    alike("4 nodes of 32", 128, 250, 20, 4),
    alike("2 nodes of 32, weights on one", 64, 250, 20, 2, one_node=True),
    alike("4 nodes of 32, weights on one", 128, 250, 20, 4, one_node=True),
)
