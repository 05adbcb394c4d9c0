"""`clarion ps`: what a running server has loaded, and what it does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from clarion.cli import options
from clarion.cli.sections import Command, option
from clarion.errors import DeviceError, ParameterError

if TYPE_CHECKING:
    from clarion.server.running import Loaded, Loads

_SECONDS = 10.0  # to answer


@click.command(cls=Command)
@option(
    "--url",
    section="Server",
    metavar="URL",
    default="http://127.0.0.1:8080",
    show_default=True,
    help="Where the server is.",
)
@option(
    "--api-key",
    section="Server",
    metavar="KEY",
    envvar="CLARION_API_KEY",
    help="One of its keys.  [CLARION_API_KEY]",
)
@options.as_json
@options.debug
def ps(url: str, api_key: str | None, as_json: bool) -> None:
    """Lists the models that a running server has loaded.

    Of each: the memory it takes, its context, the texts that are computed, the requests that wait, and when
    it is unloaded unless somebody uses it (clarion serve --idle-seconds).
    """
    import msgspec

    found = _ask(url, api_key)
    if as_json:
        print(json.dumps(msgspec.to_builtins(found)))
        return
    if not found.models:
        options.warn(f"{url} has no model loaded: one is loaded when it is asked for")
        return
    rows = [("NAME", "SIZE", "CONTEXT", "RUNNING", "WAITING", "UNLOADED IN"), *map(_row, found.models)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        cells[0] = row[0].ljust(widths[0])
        print("  ".join(cells).rstrip())


def _ask(url: str, key: str | None) -> Loads:
    """What the server says.

    Raises:
        ParameterError: the address is none, or the key is none of the server's.
        DeviceError: nobody answers there, or something that is no server of ours.
    """
    import httpx
    import msgspec

    from clarion.server.running import Loads

    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    try:
        # The environment's proxies are for other machines, and a key is for this one alone.
        answer = httpx.get(f"{url.rstrip('/')}/ps", headers=headers, timeout=_SECONDS, trust_env=False)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError, httpx.LocalProtocolError) as error:
        raise ParameterError(
            f"--url {url!r}, --api-key: {error}; expected as http://127.0.0.1:8080"
        ) from None
    except httpx.TimeoutException:
        raise DeviceError(f"{url}: no answer within {_SECONDS:g} s") from None
    except httpx.TransportError as error:
        raise DeviceError(f"{url}: no server answers: {error}; clarion serve starts one") from None
    if answer.status_code == 401:
        raise ParameterError(f"{url}: the server asks for another key (--api-key, CLARION_API_KEY)")
    try:
        if answer.status_code != 200:
            raise ValueError(f"status {answer.status_code}")
        return msgspec.json.decode(answer.content, type=Loads)
    except (msgspec.MsgspecError, ValueError) as error:
        raise DeviceError(f"{url}: expected a server of Clarion's, found another answer: {error}") from None


def _row(loaded: Loaded) -> tuple[str, ...]:
    from clarion.gguf.texts import size_text

    name = loaded.name if loaded.name.isprintable() else ascii(loaded.name)
    if loaded.is_loading:
        return name, "loading", "", "", str(loaded.waiting), ""
    if loaded.unloads_in is None:
        until = "in use" if loaded.users else "stays"
    else:
        until = f"{loaded.unloads_in:.0f} s"
    return (
        name,
        size_text(loaded.bytes),
        str(loaded.context),
        f"{loaded.running} of {loaded.parallel}",
        str(loaded.waiting),
        until,
    )
