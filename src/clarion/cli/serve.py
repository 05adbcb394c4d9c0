"""`clarion serve`: models over HTTP."""

from __future__ import annotations

import os
import re
from typing import Any

import click

from clarion.cli import options
from clarion.cli.sampling import chosen as chosen_options
from clarion.cli.sampling import sampling
from clarion.cli.sections import FILE, Command, option
from clarion.errors import ParameterError

ADDRESS, ACCESS, MANY = "Address", "Access", "Many users"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


class _Bytes(click.ParamType[int]):
    """A number of bytes, as 8G, 512M or 1.5GiB."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", str(value).strip().lower())
        if found is None:
            self.fail(f"found {value!r}, expected bytes such as 8G, 512M or 8GiB", param, ctx)
        size = _UNITS[found[2]]
        if found[3]:
            size = {10**3: 2**10, 10**6: 2**20, 10**9: 2**30, 10**12: 2**40}.get(size, size)
        return int(float(found[1]) * size)


BYTES = _Bytes()


@click.command(cls=Command)
@click.argument("words", nargs=-1, metavar="[MODEL]...", type=FILE)
@options.model
@option(
    "--models",
    "folder",
    section="Model",
    type=FILE,
    metavar="DIR",
    help="Serve every GGUF file of a folder, too.",
)
@option(
    "-a",
    "--alias",
    section="Model",
    metavar="NAMES",
    multiple=True,
    help="Further names of the first model, separated by commas; '*': any name.",
)
@option(
    "--host",
    section=ADDRESS,
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Listen there; 0.0.0.0: other machines reach the server, too.",
)
@option("--port", section=ADDRESS, type=int, default=8080, show_default=True, help="0: a free one.")
@option(
    "--tls-cert",
    "--ssl-cert-file",
    "tls_cert",
    section=ADDRESS,
    type=FILE,
    metavar="FILE",
    help="Certificate in PEM, for HTTPS.",
)
@option("--tls-key", "--ssl-key-file", "tls_key", section=ADDRESS, type=FILE, metavar="FILE", help="Its key.")
@option(
    "--api-key",
    section=ACCESS,
    metavar="KEYS",
    multiple=True,
    envvar="CLARION_API_KEY",
    help="Requests have to bring one of these keys, separated by commas.  [CLARION_API_KEY]",
)
@option("--api-key-file", section=ACCESS, type=FILE, metavar="FILE", help="The same, one in each line.")
@option(
    "--allow-host",
    "allow_hosts",
    section=ACCESS,
    metavar="NAME",
    multiple=True,
    help="Another name of this machine that requests may use; '*': any.",
)
@option(
    "--allow-origin",
    "allow_origins",
    section=ACCESS,
    metavar="URL",
    multiple=True,
    help="Pages of that site may call the server; '*': any.  [default: those of this machine]",
)
@option(
    "-np",
    "--parallel",
    section=MANY,
    type=int,
    default=32,
    show_default=True,
    help="Texts computed at once, of each model.",
)
@option(
    "--max-queue",
    section=MANY,
    type=int,
    default=256,
    show_default=True,
    help="Requests that wait at most; others get 429.",
)
@option(
    "--drop-oldest",
    section=MANY,
    is_flag=True,
    help="Conversations that are longer than the context lose their oldest messages; else they get 400.",
)
@option(
    "--memory-bytes",
    section=MANY,
    type=BYTES,
    metavar="SIZE",
    help="Memory for all loaded models together, as 16G.  [default: nine tenths of what is free]",
)
@option(
    "--cache-bytes",
    section=MANY,
    type=BYTES,
    metavar="SIZE",
    help="Memory for the states of all texts of a model.  [default: chosen from memory]",
)
@option(
    "--prefix-dir",
    section=MANY,
    type=FILE,
    metavar="DIR",
    help="Keep there what was computed of prompts and answers, so that it is found after a restart.",
)
@option(
    "--prefix-bytes",
    section=MANY,
    type=BYTES,
    metavar="SIZE",
    default="4GiB",
    show_default=True,
    help="Of a model in that folder at most; what was used longest ago leaves it.",
)
@option(
    "--idle-seconds",
    section=MANY,
    type=float,
    default=0.0,
    metavar="S",
    help="Unload a model that nobody used for so long; 0: never.  [default: 0]",
)
@option(
    "--grace-seconds",
    section=MANY,
    type=float,
    default=10.0,
    metavar="S",
    show_default=True,
    help="What running answers have when the server ends.",
)
@option(
    "--max-body-bytes",
    section=MANY,
    type=BYTES,
    metavar="SIZE",
    default="64MiB",
    show_default=True,
    help="Of a request at most.",
)
@option(
    "--max-messages",
    section=MANY,
    type=int,
    default=10_000,
    show_default=True,
    help="Of a conversation at most, and texts of a request.",
)
@option(
    "--slot-save-path",
    section=MANY,
    type=FILE,
    metavar="DIR",
    help="Slots may be saved to files of that folder, and restored.",
)
@options.template("Model", "What the template knows besides, unless a request says it:")
@sampling
@options.program
@options.weights
@options.threads
@option("--log-text", section="Output", is_flag=True, help="Print prompts and answers.")
@option("--quiet", section="Output", is_flag=True, help="Print warnings alone.")
@options.debug
def serve(
    words: tuple[str, ...],
    model_path: str | None,
    folder: str | None,
    alias: tuple[str, ...],
    api_key: tuple[str, ...],
    api_key_file: str | None,
    chat_template: str | None,
    chat_template_kwargs: str | None,
    context: int | None,
    batch: int,
    activations: str,
    kv: str | None,
    isa: str | None,
    weights: str,
    threads: int | None,
    **more: Any,
) -> None:
    """Serves models over HTTP, as OpenAI's API.

    \b
    clarion serve MODEL.gguf                then http://127.0.0.1:8080/v1 is OpenAI's API
    clarion serve                           every model that clarion list shows, loaded when asked for
    clarion serve --models DIR              every model of a folder

    Without any model on this machine, the one that comes with Clarion is served. Options of sampling hold
    for requests that do not say them. Ctrl-C ends the server.
    """
    from clarion.cli.turn import find_template, template_variables
    from clarion.runtime.sampling import Options
    from clarion.server.names import Folder, Library, served
    from clarion.server.pool import Further
    from clarion.server.run import serve as run
    from clarion.server.settings import Settings

    given = {name: more.pop(name) for name in Options.__annotations__ if name in more}
    wanted = chosen_options(given)
    if "max_tokens" in wanted and not wanted["max_tokens"]:
        raise ParameterError("max_tokens: found 0, expected 1 or more")
    paths = [*([model_path] if model_path is not None else []), *words]
    settings = Settings(
        **more,
        api_keys=_keys(api_key, api_key_file),
        context=context,
        chat_template=None if chat_template is None else find_template(chat_template),
        variables=template_variables(chat_template_kwargs),
        options=wanted,
        loading={
            "batch": batch,
            "activations": activations,
            "kv": kv,
            "isa": isa,
            "weights": weights,
            "threads": threads,
        },
    )
    aliases = [name for names in alias for name in names.split(",") if name]
    further: Further | None = None
    if folder is not None:
        further = Folder(folder)
    elif not paths and Library().every():
        further = Library()
    if further is not None and aliases and not paths:
        raise click.UsageError(f"--alias {aliases[0]}: it is a name of MODEL, and none is given")
    run(served(paths, aliases) if paths or further is None else [], settings, further=further)


def _keys(given: tuple[str, ...], file: str | None) -> tuple[str, ...]:
    """The keys of the command line, the environment and a file."""
    keys = [key.strip() for keys in given for key in keys.split(",")]
    if file is not None:
        from clarion.cli.prompt import read_lines

        keys += [line.strip() for line in read_lines(file) if line.strip() and not line.startswith("#")]
        if not keys:
            raise ParameterError(f"{os.fspath(file)}: found no key, expected one in each line")
    return tuple(dict.fromkeys(keys))
