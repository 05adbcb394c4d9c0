"""`clarion chat`: a conversation, at a terminal or from the lines of a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from clarion.cli import options
from clarion.cli.sampling import chosen as chosen_options
from clarion.cli.sampling import sampling
from clarion.cli.sections import FILE, Command, Names, option
from clarion.errors import ParameterError, TemplateError

if TYPE_CHECKING:
    from clarion import Model

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
@option("--no-history", section=CHAT, is_flag=True, help="Do not keep what is typed for the next chat.")
@option(
    "--chat-template",
    section=CHAT,
    metavar="FILE|JINJA|NAME",
    help="Another chat template than the model's; NAME is one of its further ones.",
)
@option(
    "--chat-template-kwargs",
    section=CHAT,
    metavar="JSON",
    help="What the template knows besides, as '{\"enable_thinking\": false}'.",
)
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
    import os

    from clarion import load
    from clarion.cli.chatting import files
    from clarion.cli.chatting.app import Chat
    from clarion.cli.chatting.screen import THINK
    from clarion.cli.chatting.settings import Settings, recommended
    from clarion.cli.chatting.talk import Talk
    from clarion.cli.turn import find_template, template_variables
    from clarion.conversation.history import History

    if len(words) > 1 or (words and model_path is not None):
        raise click.UsageError("found more than one model; messages are typed once the model is loaded")
    if think is not None and think not in THINK:
        raise ParameterError(f"--think: found {think!r}, expected one of {', '.join(THINK)}")
    given = chosen_options(given_sampling)
    variables = template_variables(chat_template_kwargs)
    template = None if chat_template is None else find_template(chat_template)
    settings = Settings({}, given)
    at_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    with load(
        model_path or (words[0] if words else None),
        threads=threads,
        context=context,
        activations=activations,
        kv=kv,
        isa=isa,
        batch=batch,
        weights=weights,
    ) as model:
        options.check_context(context, model.program.hyperparameters.context_length)
        if template is None and not model.tokenizer.chat_templates:
            raise TemplateError(
                f"{model.path}: the model has no chat template (tokenizer.chat_template): "
                "clarion run --raw continues texts with it, --chat-template gives it one"
            )
        settings.use_file(recommended(model.metadata))
        talk = Talk(
            model,
            History(system),
            settings,
            template=template,
            variables=variables,
            drop_oldest=drop_oldest,
        )
        if session is not None and os.path.exists(session):
            files.load(session, talk, given)
            if system is not None:
                talk.history.system = system
        app = _at_terminal if at_terminal else _in_a_pipe
        running: Chat = app(talk, think, keep_history=not no_history, show_statistics=stats)
        try:
            return running.run()
        finally:
            if session is not None:
                running.save(session)


def _at_terminal(talk: Any, think: str | None, *, keep_history: bool, show_statistics: bool) -> Any:
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
    return Chat(talk, reader, screen, watched=True, show_statistics=show_statistics)


def _in_a_pipe(talk: Any, think: str | None, *, keep_history: bool, show_statistics: bool) -> Any:
    from clarion.cli.chatting.app import Chat
    from clarion.cli.chatting.reading import LineReader
    from clarion.cli.chatting.screen import Screen

    screen = Screen(think or "hide")
    reader = LineReader()
    screen.note(f"sampling: {talk.settings.line()}")
    return Chat(talk, reader, screen, watched=sys.stdin.isatty(), show_statistics=show_statistics)
