"""Members of closed unions as JSON has them: the class's name under `kind`, beside its fields."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import Any, get_args


def tagged(member: Any) -> dict[str, Any]:
    """A frozen dataclass as a dictionary that says which one it is."""
    assert is_dataclass(member)
    assert not isinstance(member, type)
    return {"kind": type(member).__name__, **asdict(member)}


def untagged(union: Any, plain: dict[str, Any]) -> Any:
    """The member of a union that `tagged` wrote; lists become tuples.

    union: the union, or the only class where it has one member.

    Raises:
        KeyError, TypeError: nothing of the union is written so.
    """
    members = {member.__name__: member for member in get_args(union) or (union,)}
    fields = {name: tuple(v) if isinstance(v, list) else v for name, v in plain.items() if name != "kind"}
    return members[plain["kind"]](**fields)
