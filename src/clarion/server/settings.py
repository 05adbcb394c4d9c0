"""Everything that can be set about a server, checked once."""

from __future__ import annotations

import ipaddress
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from clarion.errors import ParameterError
from clarion.runtime.sampling import Options

ALL = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `serve` is told.

    Attributes:
        host, port: where it listens; port 0: a free one.
        api_keys: of which each request has to bring one; none: requests need no key.
        tls_cert, tls_key: files in PEM, for HTTPS.
        allow_hosts: further names under which the server may be called; "*": any.
        allow_origins: web pages that may call it, beside those of this machine; "*": any.
        parallel: texts that are computed at once, of each model.
        max_queue: requests that wait for a model at most.
        drop_oldest: a conversation that is longer than the context loses its oldest messages, where the
            request says nothing else.
        context: tokens of a prompt and its answer at most; None: what the model was made for, as far as
            memory allows.
        cache_bytes: of keys, values and states of all texts of a model together; None: chosen from memory.
        prefix_dir: the folder where states of prompts and answers are kept beyond the server's end.
        prefix_bytes: of each model there at most.
        memory_bytes: that all loaded models may take; None: what is available at the start.
        idle_seconds: after which a model that nobody uses is unloaded; 0: never.
        grace_seconds: that running answers have when the server ends.
        max_body_bytes: of a request.
        max_messages: of a conversation, and texts of a request.
        body_seconds: in which a request has to arrive.
        stall_seconds: for which a client may leave a stream unread.
        keep_alive_seconds: after which a stream without news gets a comment.
        slot_save_path: the folder for saved slots; None: none is saved.
        chat_template: instead of the model's: Jinja, or the name of one of the file's.
        variables: that the template knows, where a request does not say them.
        options: of sampling, where a request does not say them.
        loading: further arguments of `clarion.load`.
        quiet: only warnings are printed.
        log_text: prompts and answers are printed.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    api_keys: tuple[str, ...] = ()
    tls_cert: str | None = None
    tls_key: str | None = None
    allow_hosts: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    parallel: int = 32
    max_queue: int = 256
    drop_oldest: bool = False
    context: int | None = None
    cache_bytes: int | None = None
    prefix_dir: str | None = None
    prefix_bytes: int = 4 << 30
    memory_bytes: int | None = None
    idle_seconds: float = 0.0
    grace_seconds: float = 10.0
    max_body_bytes: int = 64 << 20
    max_messages: int = 10_000
    body_seconds: float = 60.0
    stall_seconds: float = 60.0
    keep_alive_seconds: float = 10.0
    slot_save_path: str | None = None
    chat_template: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    options: Options = field(default_factory=Options)
    loading: Mapping[str, Any] = field(default_factory=dict)
    quiet: bool = False
    log_text: bool = False

    def __post_init__(self) -> None:
        """
        Raises:
            ParameterError: a value is out of range, or contradicts another.
        """
        for name, low, high in (
            ("port", 0, 65535),
            ("parallel", 1, 1024),
            ("max_queue", 0, 1_000_000),
            ("idle_seconds", 0, math.inf),
            ("grace_seconds", 0, 3600),
            ("max_body_bytes", 1024, 1 << 40),
            ("max_messages", 1, 1_000_000),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ParameterError(f"{name}: found {value}, expected {low} to {high}")
        for name in ("body_seconds", "stall_seconds", "keep_alive_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise ParameterError(f"{name}: found {getattr(self, name)}, expected a number above 0")
        for name in ("context", "cache_bytes", "memory_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ParameterError(f"{name}: found {value}, expected 1 or more")
        if self.slot_save_path is not None and not os.path.isdir(self.slot_save_path):
            raise ParameterError(f"slot_save_path: found {self.slot_save_path!r}, expected a folder")
        for key in self.api_keys:
            if not key or not key.isascii() or not key.isprintable() or " " in key:
                raise ParameterError("api_keys: found one that is empty, or has characters beside ASCII's")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ParameterError("tls_cert and tls_key: found one of them, expected both or none")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    @property
    def scheme(self) -> str:
        return "https" if self.tls_cert is not None else "http"


@lru_cache(256)
def is_loopback(name: str) -> bool:
    """Whether a name or an address, without its port, always means this machine."""
    name = name.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    found = _address(name)
    return found is not None and found.is_loopback


@lru_cache(256)
def is_address(name: str) -> bool:
    """Whether it is a number, and no name that somebody could let point elsewhere."""
    return _address(name.strip("[]")) is not None


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
