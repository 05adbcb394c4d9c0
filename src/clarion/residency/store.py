"""The store: which extent of which weight lies where. A policy decides it; a program only reads.

Each weight is a unit of the native store, cut into extents of neighbouring rows. An extent has an address and
a layout, rows as in a file or panels of 16 rows, or it is not resident. All copies say the same, and both
layouts have the same products bit for bit, so it never matters for a result when an extent switches.

Who owns what: the policy is the one writer of the units, and owns the memory of a copy until it places it.
From then on the copy is read-only, until it was replaced and the runs that may hold it have ended: `place`
returns a version, and what it replaced may go when the store has reached that version.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from clarion._native import files

_PANEL = 16  # rows


class Weight(Protocol):
    """A weight of a program: `experts` matrices of [rows, cols]; a vector is one row."""

    @property
    def name(self) -> str: ...
    @property
    def type_id(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def cols(self) -> int: ...
    @property
    def experts(self) -> int: ...
    @property
    def n_bytes(self) -> int: ...


class Tensor(Protocol):
    """Something with bytes: u8[n_bytes], of the file."""

    @property
    def view(self) -> Any: ...


class Unit:
    """A weight in the store, for its writer.

    Attributes:
        weight: whose rows it has.
        is_panels: whether copies may be panels.
        extents: the bytes of each, which follow one another as in a file.
        step: bytes of a panel, or of the smallest piece that can be copied where there are none.
    """

    def __init__(self, weight: Weight, store: files.Store, *, is_panels: bool) -> None:
        row_bytes, rest = divmod(weight.n_bytes, weight.experts * weight.rows)
        assert rest == 0, weight.name
        self._native = store.add(weight.rows, weight.experts, row_bytes, is_panels)
        self.weight = weight
        self.is_panels = is_panels
        self.extents = [slice(*self._native.span(i)) for i in range(self._native.count)]
        self.step = _PANEL * row_bytes if weight.rows % _PANEL == 0 else 1

    @property
    def reader(self) -> object:
        """What a program takes for the weight's bytes."""
        return self._native.reader

    def place(self, extent: int, data: memoryview, *, panels: bool = False) -> int:
        """From now on an extent lies there. Returns the version from which on runs read it there.

        Raises:
            ValueError: other bytes than the extent has, or panels where there can be none.
        """
        return self._native.place(extent, data, panels)

    def place_all(self, data: Any, *, panels: bool = False) -> int:
        """`place` for all extents: `data` is the whole weight, u8[n_bytes]."""
        whole = memoryview(data)
        version = 0
        for i, extent in enumerate(self.extents):
            version = self.place(i, whole[extent], panels=panels)
        return version

    def evict(self, extent: int) -> bool:
        """From now on the extent is not resident; False, and it stays, while a run may read it."""
        return self._native.evict(extent)

    def at(self, extent: int) -> tuple[int, bool] | None:
        """Its address and whether it is panels; None: not resident."""
        return self._native.at(extent)


def place_in_file(units: Mapping[str, Unit], tensors: Mapping[str, Tensor]) -> None:
    """From now on these units lie where the file is mapped."""
    for name, unit in units.items():
        unit.place_all(tensors[name].view)


class Policy(ABC):
    """Where weights lie, and when they move; the one writer of a store's units."""

    reads_file = False  # whether the first runs read the file's mapping

    def copies_are_panels(self, weight: Weight) -> bool:
        """Whether copies of a weight may be panels."""
        return False

    @abstractmethod
    def fill(self, store: files.Store, units: Mapping[str, Unit]) -> None:
        """Places what is resident from the beginning; vectors are, since programs read them when they are
        built. Raises MemoryError."""

    def start(self) -> None:
        """Begins what goes on in the background; once, after programs are built."""
        return

    def before_run(self) -> None:
        """Brings what is not resident; may wait. Called before each run, by the thread that runs."""
        return

    def settle(self) -> None:
        """Waits until weights are where they will stay."""
        return

    def close(self) -> None:
        """Ends what goes on in the background. Weights stay where they are."""
        return


class Store:
    """The weights of one program or of several, as a source of `Program.native_spec`."""

    def __init__(
        self,
        weights: Iterable[Weight],
        policy: Policy,
        *,
        extent_bytes: int = files.Store.DEFAULT_EXTENT_BYTES,
    ) -> None:
        """Raises MemoryError."""
        self.native = files.Store(extent_bytes)
        self._policy = policy
        self._units = {
            weight.name: Unit(weight, self.native, is_panels=policy.copies_are_panels(weight))
            for weight in weights
        }
        policy.fill(self.native, self._units)

    def data(self, name: str) -> object:
        """What a program takes for the bytes of a weight."""
        return self._units[name].reader

    @property
    def reads_file(self) -> bool:
        """Whether the first runs read the file's mapping."""
        return self._policy.reads_file

    def start(self) -> None:
        """Begins to move weights in the background, where the policy does; once, after programs are built."""
        self._policy.start()

    def before_run(self) -> None:
        """To be called before each run, by the thread that runs: whatever is not resident comes. May wait."""
        self._policy.before_run()

    def settle(self) -> None:
        """Waits until weights are where they will stay: from then on speeds stay the same."""
        self._policy.settle()

    def close(self) -> None:
        """Ends what goes on in the background and lets go of the memory, which programs that still read it
        keep alive."""
        self.native.end()
        self._policy.close()
        self._units.clear()
