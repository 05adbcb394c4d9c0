"""config.json: typed access."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from clarion.errors import ModelError, UnsupportedError

_LEAST, _MOST = (float(limit) for limit in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))


def whole(value: Any) -> int | None:
    """The integer that a number of a JSON file is, written as 256 or as 256.0; None for anything else."""
    if type(value) is float and value.is_integer():
        return int(value)
    return value if type(value) is int else None


class Config:
    """A JSON object with hyperparameters. Errors name the key, what was found and what is expected."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = values
        self._where = where

    def keys(self) -> list[str]:
        """All keys that are there."""
        return list(self._values)

    def get(self, *keys: str) -> Any:
        """The value of the first key that is there and not null."""
        return next((self._values[key] for key in keys if self._values.get(key) is not None), None)

    def integer(self, *keys: str, default: int | None = None, least: int = 1) -> int:
        """A whole number from `least`; the first of the keys that is there."""
        value = self.get(*keys)
        value = default if value is None else value
        number = whole(value)
        if number is None or not least <= number < 2**31:
            raise self.error(keys[0], value, f"a whole number from {least}")
        return number

    def number(self, *keys: str, default: float | None = None) -> float:
        """A number above zero that is one in float32 too, which is how files hold it."""
        value: Any = self.get(*keys)
        value = default if value is None else value
        if type(value) not in (int, float) or not _LEAST <= value <= _MOST:
            raise self.error(keys[0], value, f"a number above zero, {_LEAST:.2g} to {_MOST:.2g}")
        return float(value)

    def flag(self, *keys: str, default: bool | None = None) -> bool:
        """True or false; the first of the keys that is there."""
        value = self.get(*keys)
        value = default if value is None else value
        if type(value) is not bool:
            raise self.error(keys[0], value, "true or false")
        return value

    def child(self, key: str) -> Config:
        """The object below a key, empty where there is none."""
        value = self.get(key)
        value = {} if value is None else value
        if not isinstance(value, Mapping):
            raise self.error(key, value, "an object")
        return Config(value, f"{self._where}: {key}")

    def only(self, key: str, *allowed: object) -> None:
        """Raises UnsupportedError if the key is there and its value none of these."""
        value = self.get(key)
        if value is not None and value not in allowed:
            raise self.unsupported(key, value, " or ".join(map(repr, allowed)))

    def error(self, key: str, found: object, expected: str) -> ModelError:
        return ModelError(f"{self._where}: {key} is {found!r:.80}, expected {expected}")

    def unsupported(self, key: str, found: object, supported: str) -> UnsupportedError:
        return UnsupportedError(f"{self._where}: {key} is {found!r:.80}, supported: {supported}")
