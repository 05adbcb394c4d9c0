"""`clarion chat`: a conversation, at a terminal or from the lines of a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from clarion.cli import options
from clarion.cli.sampling import chosen as chosen_options
from clarion.cli.sampling import sampling
from clarion.cli.sections import FILE, Command, Names, option
from clarion.errors import ModelError, ParameterError, TemplateError

if TYPE_CHECKING:
    from clarion import Model, Options
    from clarion.cli.chatting.app import Chat
    from clarion.cli.chatting.calling import Calling
    from clarion.cli.chatting.talk import Talk

CHAT = "Chat"


@click.command(cls=Command)
@click.argument("words", nargs=-1, metavar="[MODEL]", type=FILE)
@options.model
@option("-sys", "--system", section=CHAT, metavar="TEXT", help="What the system says first.")
@option(
    "--think",
    section=CHAT,
    type=Names(("show", "fold", "hide")),
    help="What is shown of reasoning: all, one line, or nothing.  [default: fold; hide in a pipe]",
)
@option(
    "--session",
    section=CHAT,
    type=FILE,
    metavar="FILE",
    help="Go on with the conversation in this file, if it is there, and save it at the end.",
)
@option(
    "--drop-oldest",
    section=CHAT,
    is_flag=True,
    help="Where the context is full, forget the oldest exchange, and say so.",
)
@option(
    "--mcp",
    section=CHAT,
    multiple=True,
    metavar="COMMAND|FILE",
    help="Start a server of tools (Model Context Protocol) that the model may call: a command line, or a "
    'JSON file with {"mcpServers": {...}}; may be given several times.',
)
@option("--allow-tools", section=CHAT, is_flag=True, help="Call tools without asking first.")
@option("--no-history", section=CHAT, is_flag=True, help="Do not keep what is typed for the next chat.")
@options.template(CHAT)
@sampling
@options.program
@options.weights
@options.threads
@option("--stats", section="Output", is_flag=True, help="Print the statistics of each answer.")
@options.debug
def chat(
    words: tuple[str, ...],
    model_path: str | None,
    system: str | None,
    think: str | None,
    session: str | None,
    drop_oldest: bool,
    mcp: tuple[str, ...],
    allow_tools: bool,
    no_history: bool,
    chat_template: str | None,
    chat_template_kwargs: str | None,
    context: int | None,
    batch: int,
    activations: str,
    kv: str | None,
    isa: str | None,
    weights: str,
    threads: int | None,
    stats: bool,
    **given_sampling: Any,
) -> int:
    """Talks with a model.

    Answers come as they are written, and Ctrl-C ends one. /help lists the commands: take back, answer again,
    edit, save, change how tokens are chosen. In a pipe, each line of standard input is a message, and the
    answers alone go to standard output.
    """
    from clarion import load
    from clarion.cli.chatting.screen import THINK
    from clarion.cli.chatting.settings import Settings
    from clarion.cli.chatting.talk import Talk
    from clarion.cli.turn import find_template, template_variables
    from clarion.conversation.history import History
    from clarion.gguf.writable import check_writable

    if len(words) > 1 or (words and model_path is not None):
        raise click.UsageError("found more than one model; messages are typed once the model is loaded")
    if think is not None and think not in THINK:
        raise ParameterError(f"--think: found {think!r}, expected one of {', '.join(THINK)}")
    given = chosen_options(given_sampling)
    variables = template_variables(chat_template_kwargs)
    template = None if chat_template is None else find_template(chat_template)
    settings = Settings({}, given)
    at_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    with (
        _tools(mcp, allow_tools) as calling,
        load(
            model_path or (words[0] if words else None),
            threads=threads,
            context=context,
            activations=activations,
            kv=kv,
            isa=isa,
            batch=batch,
            weights=weights,
        ) as model,
    ):
        options.check_context(context, model.program.hyperparameters.context_length)
        if template is None and not model.tokenizer.chat_templates:
            raise TemplateError(
                f"{model.path}: the model has no chat template (tokenizer.chat_template): "
                "clarion run --raw continues texts with it, --chat-template gives it one"
            )
        settings.use_file(_recommended(model))
        talk = Talk(
            model,
            History(system),
            settings,
            template=template,
            variables=variables,
            drop_oldest=drop_oldest,
        )
        app = _at_terminal if at_terminal else _in_a_pipe
        running: Chat = app(talk, think, keep_history=not no_history, show_statistics=stats, calling=calling)
        if session is None:
            return running.run()
        check_writable(session)
        if os.path.exists(session):
            running.load(session, given)
            talk.history.system = talk.history.system if system is None else system
        try:
            return running.run()
        finally:
            running.save(session, states=True)


@contextmanager
def _tools(wanted: tuple[str, ...], allowed: bool) -> Iterator[Calling | None]:
    """What calls the tools of servers, which run as long."""
    if not wanted:
        yield None
        return
    from clarion.cli.chatting.calling import Calling
    from clarion.cli.chatting.servers import Tools, servers

    with Tools(servers(wanted)) as tools:
        yield Calling(tools, without_asking=allowed)


def _recommended(model: Model) -> Options:
    """The options that the file recommends; none, and a line that says so, where they cannot be."""
    try:
        return model.defaults
    except ModelError as error:
        options.warn(f"{error}; none of the file's sampling options is used")
        return {}


def _at_terminal(talk: Talk, think: str | None, *, keep_history: bool, **more: Any) -> Chat:
    from clarion.cli.chatting.app import LEAVE, Chat, size
    from clarion.cli.chatting.commands import complete
    from clarion.cli.chatting.screen import TerminalScreen
    from clarion.cli.chatting.terminal import TerminalReader

    screen = TerminalScreen(think or "fold")
    model: Model = talk.model
    architecture = model.program.hyperparameters.architecture
    screen.note(f"{model.path.name}: {architecture}, {size(model)}, context {model.context}")
    screen.note(f"sampling: {talk.settings.line()}")
    screen.note(f"/help lists the commands, {LEAVE}")
    reader = TerminalReader(complete, keep_history=keep_history)
    return Chat(talk, reader, screen, watched=True, **more)


def _in_a_pipe(talk: Talk, think: str | None, *, keep_history: bool, **more: Any) -> Chat:
    from clarion.cli.chatting.app import Chat
    from clarion.cli.chatting.reading import LineReader
    from clarion.cli.chatting.screen import Screen

    screen = Screen(think or "hide")
    reader = LineReader()
    screen.note(f"sampling: {talk.settings.line()}")
    return Chat(talk, reader, screen, watched=sys.stdin.isatty(), **more)
