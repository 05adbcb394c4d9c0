"""The `tokenizers` library as the reference of a checkpoint's tokenizer.json."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from clarion.errors import FormatError, ModelError, UnsupportedError

_STANDARD_ERROR = 2
_MOST_SAID = 400  # characters of the library's own message in one of ours
_OPTIONS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_redirected = threading.Lock()


@contextlib.contextmanager
def guarded(where: str) -> Iterator[None]:
    """Turns a panic of the library into a FormatError that `where` begins.

    A panic is no Exception, and the library prints it to the process's standard error. So that goes to a file
    meanwhile; what others wrote there is printed afterwards.
    """
    panic: BaseException | None = None
    with _redirected, tempfile.TemporaryFile() as file:
        saved = _redirect(file.fileno())
        try:
            yield
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            panic = error
        finally:
            _restore(saved)
            if panic is None:
                _replay(file.fileno())
    if panic is not None:
        raise FormatError(f"{where}: cannot be used: the tokenizers library panics: {_said(panic)}") from None


def _redirect(file: int) -> int | None:
    """Where standard error went before; None where it is closed."""
    try:
        saved = os.dup(_STANDARD_ERROR)
    except OSError:
        return None
    os.dup2(file, _STANDARD_ERROR)
    return saved


def _restore(saved: int | None) -> None:
    if saved is not None:
        os.dup2(saved, _STANDARD_ERROR)
        os.close(saved)


def _replay(file: int) -> None:
    """Prints what standard error got meanwhile."""
    size = os.fstat(file).st_size
    if size:
        os.lseek(file, 0, os.SEEK_SET)
        with contextlib.suppress(OSError):  # nobody listens any more
            os.write(_STANDARD_ERROR, os.read(file, size))


def _said(error: BaseException) -> str:
    """The library's message in one line: it quotes tokens, and these may be any text."""
    shown = (c if c.isprintable() else repr(c)[1:-1] for c in str(error)[:_MOST_SAID])
    return "".join(shown)


def _library(where: str) -> Any:
    """The library, which only converting needs: it brings 30 MB with it, so it is an extra of the package."""
    try:
        return importlib.import_module("tokenizers")
    except ImportError as error:
        raise UnsupportedError(
            f"{where}: is read with the tokenizers library, which is not here; pip install 'clarion[convert]'"
        ) from error


def parse(text: str, values: Mapping[str, Any], where: str) -> Any:
    """The library's tokenizer of a tokenizer.json, that neither pads nor truncates.

    Args:
        text: the file.
        values: the same, parsed.

    Raises:
        FormatError: the library cannot read it.
        UnsupportedError: the library is not installed.
    """
    library = _library(where)
    if values.get("truncation") is not None or values.get("padding") is not None:
        text = json.dumps({**values, "truncation": None, "padding": None})
    try:
        return library.Tokenizer.from_str(text)
    except Exception as error:  # the library's own, which has no class
        raise FormatError(f"{where}: cannot be read: {_said(error)}") from error


def add(
    tokenizer: Any,
    decoder: Mapping[int, Mapping[str, Any]],
    named: Iterable[Mapping[str, Any]],
    n_vocab: int,
    where: str,
) -> None:
    """Adds tokens as transformers do when they load a checkpoint.

    Args:
        decoder: `added_tokens_decoder` of tokenizer_config.json.
        named: the tokens that have roles. They become special; those that are not in the vocabulary and that
            the embedding has no row for are left out.
        n_vocab: rows of the embedding.

    Raises:
        FormatError: an option of a token is not true or false.
        UnsupportedError: the library is not installed.
    """
    library = _library(where)

    def made(entry: Mapping[str, Any]) -> Any:
        options = {key: entry[key] for key in _OPTIONS if key in entry}
        try:
            return library.AddedToken(entry["content"], **options)
        except Exception as error:  # of the library, with no class
            raise FormatError(f"{where}: added token {dict(entry)!r:.160}: {_said(error)}") from error

    known = {repr(token) for token in tokenizer.get_added_tokens_decoder().values()}
    wanted = [made(entry) for _, entry in sorted(decoder.items())]
    wanted = [token for token in wanted if repr(token) not in known]
    if wanted:
        tokenizer.add_tokens(wanted)
    added = tokenizer.get_added_tokens_decoder()
    texts = {token.content for token in added.values()}
    following = max([tokenizer.get_vocab_size(with_added_tokens=False), *(token + 1 for token in added)])
    wanted = []
    for entry in named:
        if entry["content"] in texts or not entry["content"]:
            continue
        if tokenizer.token_to_id(entry["content"]) is None:
            if following >= n_vocab:
                continue
            following += 1
        wanted.append(made({"normalized": False, **entry, "special": True}))
        texts.add(entry["content"])
    if wanted:
        tokenizer.add_tokens(wanted)


def around(
    tokenizer: Any, values: Mapping[str, Any], n_vocab: int, where: str
) -> tuple[list[int], list[int]]:
    """The ids that the post-processor puts before and after a text.

    Args:
        values: of the tokenizer.json.
        n_vocab: rows of the embedding.

    Raises:
        UnsupportedError: a template that is anything but tokens around one text.
        ModelError: a token that the embedding has no row for.
    """
    for part in parts(values.get("post_processor"), "processors"):
        if part.get("type") == "TemplateProcessing":
            texts = [item for item in objects(part.get("single")) if "Sequence" in item]
            if len(texts) != 1:
                raise UnsupportedError(
                    f"{where}: the post_processor's template has the text {len(texts)} times, supported: once"
                )
    encoding = tokenizer.encode("a", add_special_tokens=True)
    if max(encoding.ids, default=0) >= n_vocab:
        raise ModelError(
            f"{where}: post_processor puts token {max(encoding.ids)} around a text, "
            f"expected ids below the embedding's {n_vocab} rows"
        )
    of_text = [i for i, special in enumerate(encoding.special_tokens_mask) if not special]
    if not of_text:
        return list(encoding.ids), []
    return encoding.ids[: of_text[0]], encoding.ids[of_text[-1] + 1 :]


def parts(value: Any, key: str) -> list[Mapping[str, Any]]:
    """A normalizer, pre-tokenizer or processor, or all of a sequence of them, in order."""
    if not isinstance(value, dict):
        return []
    if value.get("type") != "Sequence":
        return [value]
    return [part for item in objects(value.get(key)) for part in parts(item, key)]


def objects(value: Any) -> list[Mapping[str, Any]]:
    """The objects in a list; what is no list holds none."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
