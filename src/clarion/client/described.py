"""What a server says of a model that it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from clarion.client.fields import Target
from clarion.client.jobs import Get, read_as
from clarion.client.wire import Wire
from clarion.errors import ParameterError, ServerError
from clarion.runtime.streams import wait

ABSENT: Final = (404, 405)  # statuses: nothing is at this path


class Described:
    """The description of a model, as far as it is known. Any thread may ask for it.

    Attributes:
        name: of the model.
        is_clarion: whether the server is one of Clarion's.
    """

    def __init__(self, wire: Wire, url: str, model: str | None) -> None:
        """
        Args:
            model: its name; None: the first one that the server lists.

        Raises:
            ParameterError: there is no name, and the server lists none.
            ServerError, ...: see `clarion.connect`.
        """
        self._wire = wire
        self._url = url
        listed = self._listed(model)
        self.is_clarion = any(found.get("owned_by") == "clarion" for found in listed)
        if model is None and not listed:
            raise ParameterError(f"model: found none, and {url} lists none: expected a name")
        self.name: str = listed[0]["id"] if model is None else model
        self._known = self._describe(listed)

    @property
    def target(self) -> Target:
        """Whom requests are for, without asking the server."""
        return Target(self.name, self.is_clarion, _number(self._known, "n_vocab"))

    def number(self, *names: str) -> int | None:
        """What it has under one of these names; the server is asked again where there is nothing."""
        for ask in (False, True):
            if ask:
                self._known = self._describe(self._listed(self.name))
            for name in names:
                if (found := _number(self._known, name)) is not None:
                    return found
        return None

    def _listed(self, model: str | None) -> list[dict[str, Any]]:
        """The models that the server lists; of Clarion's, the one that has this name or alias."""
        try:
            every = self._models("/v1/models")
        except ServerError as error:
            if model is None or error.status not in ABSENT:
                raise
            return []
        if model is not None and any(found.get("owned_by") == "clarion" for found in every):
            return self._models(f"/v1/models/{quote(model)}")  # an error says which names are near
        return every

    def _models(self, path: str) -> list[dict[str, Any]]:
        job = Get(path)
        wait(self._wire, job)

        def read(answer: Any) -> list[dict[str, Any]]:
            return [{**found, "id": str(found["id"])} for found in answer.get("data", [answer])]

        return read_as(self._url, job.found, read)

    def _describe(self, listed: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """What the list says of the model; of Clarion's servers, whatever name it was asked for by."""
        alone = listed[0] if self.is_clarion else {}
        return next((found for found in listed if found["id"] == self.name), alone)


def _number(described: Mapping[str, Any], name: str) -> int | None:
    """A number that stands in the description of a model, or in its part `meta`."""
    meta = described.get("meta")
    value = described.get(name, meta.get(name) if isinstance(meta, dict) else None)
    return value if isinstance(value, int) else None
