"""GET /slots, POST /slots/{id}: conversations by number, and their states in files.

Texts here are not tied to slots: any text finds whatever of its beginning the cache still holds. So a slot is
a number, 0 to `parallel` - 1, that clients give a conversation (`id_slot` of a request). The server remembers
the tokens of the last text of each number, prompt and answer. To save a slot is to write the state of these
tokens to a file; to restore it reads the state back into the cache, where any request finds it. Numbers are
of a model, and all clients of the server share them.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any, Final

from clarion.errors import FileError, FormatError, ParameterError
from clarion.model import Model
from clarion.server.call import Call
from clarion.server.errors import RefusedError, bad
from clarion.server.fields import read
from clarion.server.llama.completion import one_prompt
from clarion.server.llama.tokens import check_ids, mixed
from clarion.server.openai.conversations import HARMLESS, UNSUPPORTED, Messages, check_length, conversation
from clarion.server.openai.prompts import check_room
from clarion.server.pool import Served

_ACTIONS: Final = ("save", "restore", "erase")
_MOST_NAME: Final = 200  # characters


class SlotRequest(Messages, kw_only=True):
    """The fields of a request.

    Attributes:
        filename: within the server's folder.
        prompt, messages: what is saved in the place of what the slot remembers.
    """

    filename: str = ""
    prompt: Any = None


async def slots(call: Call) -> None:
    """What the slots of a model do: of `?model=`, or the first one. No text is told."""
    served = call.server.pool.find(call.query.get("model"))
    context = served.model.context if served.model is not None else None
    numbers = range(call.server.settings.parallel)
    # A text without a number counts where there is no other one.
    free = [text for text in served.tally.texts if text.slot is None]
    by_number = {text.slot: text for text in served.tally.texts if text.slot is not None}
    found = []
    for number in numbers:
        text = by_number.get(number) or (free.pop() if free else None)
        remembered = served.tally.slots.get(number, ())
        found.append(
            {
                "id": number,
                "n_ctx": context,
                "is_processing": text is not None,
                "n_remembered": len(remembered),
                "n_prompt_tokens": text.n_prompt if text is not None else 0,
                "n_decoded": text.n_written if text is not None else 0,
                "seconds": round(time.monotonic() - text.started, 3) if text is not None else 0.0,
            }
        )
    await call.answer(found)


async def act(call: Call) -> None:
    """Saves, restores or forgets a slot, as `?action=` says."""
    action = call.query.get("action", "")
    if action not in _ACTIONS:
        raise bad("action", f"found {action!r:.40}, expected {', '.join(_ACTIONS)}")
    parallel = call.server.settings.parallel
    word = call.path["id"]
    number = int(word) if word.isascii() and word.isdigit() and len(word) < 9 else -1
    if not 0 <= number < parallel:
        raise bad("id_slot", f"found {word!r:.40}, expected 0 to {parallel - 1}")
    request, given = await read(call, SlotRequest, unsupported=UNSUPPORTED, harmless=HARMLESS)
    served = call.server.pool.find(request.model)
    if action == "erase":
        forgotten = served.tally.slots.pop(number, ())
        await call.answer({"id_slot": number, "n_erased": len(forgotten)})
        return
    path = _path(call, request.filename)
    async with call.watch, call.server.pool.use(served) as model:
        started = time.monotonic()
        try:
            if action == "save":
                ids = await asyncio.to_thread(_tokens, call, served, model, number, request, given)
                n_bytes = await model.asave_session(path, ids)
                counted = {"n_saved": len(ids), "n_written": n_bytes}
            else:
                if not path.is_file():
                    raise RefusedError(404, "filename: there is no such file", param="filename")
                ids = await model.aload_session(path)
                served.tally.remember(number, ids)
                counted = {"n_restored": len(ids), "n_read": path.stat().st_size}
        except (FileError, FormatError, ParameterError) as error:
            # Where the folder lies is nobody's business.
            said = str(error).replace(str(path), request.filename)
            status = 500 if isinstance(error, FileError) else 400
            raise RefusedError(status, said, param="filename", code="session_file") from None
        took = (time.monotonic() - started) * 1e3
    await call.answer(
        {"id_slot": number, "filename": request.filename, **counted, "timings": {f"{action}_ms": took}}
    )


def _tokens(
    call: Call, served: Served, model: Model, number: int, request: SlotRequest, given: dict[str, Any]
) -> list[int]:
    """The tokens that are saved."""
    if request.prompt is not None and request.messages:
        raise bad("prompt", "found messages, too, expected one of them")
    if request.prompt is not None:
        parts = one_prompt("prompt", request.prompt)
        check_ids(model, "prompt", parts)
        ids = mixed(model, parts)
    elif request.messages:
        check_length(request.messages, call.server.settings.max_messages)
        said = conversation(call, model, request, given)
        ids = said.ids(said.text())
    else:
        ids = list(served.tally.slots.get(number, ()))
        if not ids:
            raise RefusedError(
                400,
                f"slot {number} remembers no conversation: requests give theirs the number with "
                f'"id_slot": {number}, or this one brings a prompt or messages',
                param="id_slot",
                code="empty_slot",
            )
        return ids
    check_room(model, ids)
    return ids


def _path(call: Call, name: str) -> Path:
    """The file of a name, which is in the server's folder and nowhere else.

    Raises:
        RefusedError: 501, the server has no folder; 400, the name is no name of a file.
    """
    folder = call.server.settings.slot_save_path
    if folder is None:
        raise RefusedError(
            501, "this server saves no slots: --slot-save-path DIR lets it", code="slots_not_saved"
        )
    is_name = 0 < len(name) <= _MOST_NAME and name.isprintable() and not name.startswith(".")
    if not is_name or any(letter in name for letter in '/\\:*?"<>|') or len(name.encode()) > _MOST_NAME:
        raise bad(
            "filename", f"found {name!r:.60}, expected the name of a file, without folders or a leading dot"
        )
    return Path(folder) / name
