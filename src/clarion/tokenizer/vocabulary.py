"""The tokens of a GGUF file and their roles, resolved the way llama.cpp resolves them."""

from __future__ import annotations

import re
from array import array
from itertools import repeat
from typing import Final

from clarion.tokenizer.settings import Settings, brief

UNKNOWN, UNUSED, NORMAL, CONTROL, USER_DEFINED, BYTE = (1 << i for i in range(6))
SPECIAL: Final = UNKNOWN | CONTROL  # recognised in a text only on request
_ATTRIBUTE_OF_TYPE: Final = {1: NORMAL, 2: UNKNOWN, 3: CONTROL, 4: USER_DEFINED, 5: UNUSED, 6: BYTE}
SPACE: Final = "\u2581"  # how vocabularies that escape it write a space

# Tokens with one of these texts end generation.
_END_TEXTS: Final = frozenset(
    {
        *(
            "<|eot_id|>",
            "<|eom_id|>",
            "<|im_end|>",
            "<|end|>",
            "<|endoftext|>",
            "<|end_of_text|>",
            "<eos>",
            "</s>",
        ),
        *("<end_of_turn>", "<turn|>", "<end_of_utterance>", "<\uff5cend\u2581of\u2581sentence\uff5c>"),
        *("<|return|>", "<|call|>", "<|calls|>", "<|flush|>", "<|tool_response>"),
        *("<EOT>", "_<EOT>", "[EOT]", "[EOS]", "[e~["),
    }
)
# The roles in filling-in: keys that may name the token, and the texts that it has where none does.
_FILL_IN: Final = {
    ("fim_pre", "prefix"): (
        *("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<\uff5cfim\u2581begin\uff5c>", "<PRE>"),
        *("\u2581<PRE>", "<|code_prefix|>", "<|prefix|>"),
    ),
    ("fim_suf", "suffix"): (
        *("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<\uff5cfim\u2581hole\uff5c>", "<SUF>"),
        *("\u2581<SUF>", "<|code_suffix|>", "<|suffix|>"),
    ),
    ("fim_mid", "middle"): (
        *("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<\uff5cfim\u2581end\uff5c>", "<MID>"),
        *("\u2581<MID>", "<|code_middle|>", "<|middle|>"),
    ),
    ("fim_pad",): ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    ("fim_rep",): ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    ("fim_sep",): ("<|file_sep|>",),
}
_ENDING_ROLES: Final = ("fim_pad", "fim_rep", "fim_sep")
_ALWAYS_PARSED: Final = ("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")


class Vocabulary:
    """Texts, attributes and scores of the tokens.

    Attributes:
        texts: the tokens as the file writes them; bytes that are no UTF-8 stand as lone surrogates.
        ids: the id of a text.
        attributes: bits (UNKNOWN ... BYTE) per token.
        scores: one per token; zeros if the file has none.
        end_tokens: the tokens that end generation.
        strip_left, strip_right: special tokens that swallow the white space before or after them.

    Raises:
        TokenizerError: arrays are too short or of the wrong kind, or two tokens have the same text.
    """

    def __init__(self, settings: Settings) -> None:
        fields, n_tokens = settings.fields, settings.n_tokens
        texts = fields.strings("tokenizer.ggml.tokens") or []
        if "" in texts:
            texts = [text or f"[EMPTY_{index}]" for index, text in enumerate(texts)]
        self.texts = texts
        self.ids = dict(zip(texts, range(len(texts)), strict=True))
        if len(self.ids) < n_tokens:
            index = next(i for i, text in enumerate(self.texts) if self.ids[text] != i)
            other = self.ids[self.texts[index]]
            raise fields.error(
                "tokenizer.ggml.tokens",
                f"{brief(self.texts[index])} at {index} and {other}",
                "each text once",
            )
        self.scores = fields.floats("tokenizer.ggml.scores", n_tokens) or array("f", bytes(4 * n_tokens))
        types = fields.ints("tokenizer.ggml.token_type", n_tokens) or [1] * n_tokens
        self.attributes = bytearray(map(_ATTRIBUTE_OF_TYPE.get, types[:n_tokens], repeat(0)))
        # What the types say in the file decides which tokens a unigram vocabulary may use.
        self.file_attributes = bytes(self.attributes)
        self.end_tokens = frozenset(self._resolve_roles(settings)) | frozenset(settings.end_tokens)
        self.strip_left, self.strip_right = self._resolve_stripping(settings)

    def special_tokens(self, parse_special: bool) -> list[int]:
        """The tokens to look for in a text before anything else, longest first."""
        wanted = USER_DEFINED | SPECIAL if parse_special else USER_DEFINED
        unwanted = 0 if parse_special else SPECIAL
        looked_for = bytes(bits & wanted != 0 and bits & unwanted == 0 for bits in range(256))
        found = [match.start() for match in re.finditer(b"\1", self.attributes.translate(looked_for))]
        return sorted(found, key=lambda i: -len(self.texts[i].encode("utf-8", "surrogateescape")))

    def byte_token(self, byte: int) -> int | None:
        """The token that stands for a byte: `<0xXX>`."""
        return self.ids.get(f"<0x{byte:02X}>")

    def character_token(self, byte: int) -> int | None:
        """The token whose text is just this byte."""
        return self.ids.get(bytes((byte,)).decode("utf-8", "surrogateescape"))

    def _resolve_roles(self, settings: Settings) -> set[int]:
        """The tokens that end generation. Gives tokens with well-known texts the attribute that they lack."""
        fields, ids = settings.fields, self.ids

        def named(role: str) -> int | None:
            return fields.token(f"tokenizer.ggml.{role}_token_id", settings.n_tokens)

        ends = {settings.eos, named("eot"), named("eom")} - {None}
        for roles, texts in _FILL_IN.items():
            tokens = [token for role in roles if (token := named(role)) is not None]
            if not tokens:
                tokens = sorted(ids[text] for text in texts if text in ids)[:1]
                for token in tokens:
                    self.attributes[token] |= CONTROL
            if roles[0] in _ENDING_ROLES:
                ends.update(tokens)
        for text in _END_TEXTS:
            if text in ids:
                ends.add(ids[text])
                self.attributes[ids[text]] |= CONTROL
        for text in _ALWAYS_PARSED:
            if text in ids:
                self.attributes[ids[text]] = USER_DEFINED

        # Where messages end with other tokens, <|end|> only separates the parts of one.
        texts_of_ends = {self.texts[token] for token in ends if token is not None}
        if "<|end|>" in texts_of_ends and (
            (texts_of_ends & {"<|call|>", "<|calls|>"}) and (texts_of_ends & {"<|return|>", "<|flush|>"})
        ):
            ends.remove(ids["<|end|>"])
            self.attributes[ids["<|end|>"]] = USER_DEFINED
        if "</s>" in texts_of_ends and texts_of_ends & {"<|tool_response>", "<|plamo:eos|>"}:
            ends.remove(ids["</s>"])
            self.attributes[ids["</s>"]] = NORMAL
        return {token for token in ends if token is not None}

    def _resolve_stripping(self, settings: Settings) -> tuple[frozenset[int], frozenset[int]]:
        """Files do not say which special tokens swallow white space; the models' names do."""
        name, pre, architecture = (
            settings.fields.text(key) or ""
            for key in ("general.name", "tokenizer.ggml.pre", "general.architecture")
        )
        name = name.lower()
        mask = None
        if any(part in pre for part in ("jina-v2-de", "jina-v2-es", "jina-v2-code")) or any(
            part in architecture for part in ("nomic-bert-moe", "jina-bert-v3")
        ):
            mask = self.ids.get("<mask>")
        elif "phi-3" in name or "phi3" in name:
            right = {*self.special_tokens(parse_special=True), self.ids.get("</s>")}
            right -= {None, *map(self.ids.get, ("<unk>", "<s>", "<|endoftext|>"))}
            return frozenset(), frozenset(token for token in right if token is not None)
        elif "modern-bert" in name:
            mask = self.ids.get("[MASK]")
        return frozenset() if mask is None else frozenset({mask}), frozenset()
