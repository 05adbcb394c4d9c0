"""Flags that people bring along from llama.cpp and Ollama, and what each of them means here.

One line for each: its names, how many values it takes or which words may follow it, and one of
- the words of ours that it stands for, `{}` for its value, or a table from its values to such words,
- a note: it is accepted, and the note says what happens instead; without a note nothing needs to be said,
  because it asks for what is always so,
- a refusal, which says what to use.
Some values (`off`) ask for nothing: these are accepted in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import click


class Flag(NamedTuple):
    """What a flag of another program means here."""

    names: tuple[str, ...]
    n_values: int = 0
    choices: tuple[str, ...] = ()  # words that may follow it
    own: tuple[str, ...] | Mapping[str, tuple[str, ...]] = ()
    note: str = ""
    refusal: str = ""
    off: tuple[str, ...] = ()
    numbers: str | None = None  # its values are numbers, or one of these words

    def is_off(self, values: Sequence[str]) -> bool:
        """Whether these values ask for nothing."""
        return bool(values) and all(value.lower() in self.off for value in values)

    def own_words(self, name: str, values: Sequence[str], context: click.Context) -> list[str]:
        """The words of ours that stand for it."""
        if isinstance(self.own, Mapping):
            value = values[0].lower() if values else ""
            if value not in self.own:
                known = ", ".join(self.own)
                raise click.UsageError(f"{name}: found {value!r}, expected one of {known}", context)
            return list(self.own[value])
        return [word.format(*values) if "{" in word else word for word in self.own]


def _flag(names: str, n_values: int = 0, choices: str = "", own: object = "", **more: Any) -> Flag:
    if isinstance(own, dict):
        words: tuple[str, ...] | dict[str, tuple[str, ...]] = {
            value: tuple(text.split()) for value, text in own.items()
        }
    else:
        words = tuple(str(own).split())
    off = tuple(str(more.pop("off", "")).split())
    return Flag(tuple(names.split()), n_values, tuple(choices.split()), words, off=off, **more)


_ON_OFF = "on off auto 0 1 true false enabled disabled"
_ONE_PROCESSOR = "accelerators are not used yet: everything is computed on the processor"
_PULL = "clarion pull NAME fetches it; then NAME is a model wherever a file is"
_TOKEN = "what is restricted is opened by HF_TOKEN in the environment, or by hf auth login"
_CHAT = (
    "conversations are held with clarion chat MODEL; without this flag, "
    "run answers a prompt as one turn of chat, and -no-cnv (--raw) continues a text"
)
_GRAMMAR = "grammars and JSON schemas are not implemented yet"
_DRAFT = "speculation with a draft model is not implemented yet"
_FILE_DECIDES = "positions are computed as the file says, which cannot be changed yet"
_TASKSET = "processors are chosen with the system's own means, as in taskset -c 0-3 clarion ..."
_ADAPTER = "adapters are not implemented: merge them into the model before it is converted"
_IMAGES = "images, sound and video are not implemented yet"
_SERVER = "it is for clarion serve"
_ORDER = "samplers have one order, the one in docs/sampling.md; each has an option of its own"
_SAMPLER = "this sampler is not implemented; docs/sampling.md lists those that are"
_NO_SHIFT = "the context is never shifted: the text ends where it is full, and -c gives it more"

# Of whatever reads a model, and has no way of its own to fetch one.
_HUBS = (_flag("-hf -hfr --hf-repo -hff --hf-file -mu --model-url", 1, refusal=_PULL),)

# Of whatever runs one.
_MODEL = (
    _flag("--ctx-size", 1, own="--context {}"),
    _flag("--batch-size -ub --ubatch-size", 1, own="--batch {}"),
    _flag(
        "-tb --threads-batch",
        1,
        note="-t is the number of threads of prompt and generation alike",
        numbers="",
    ),
    _flag("-fa --flash-attn", choices=_ON_OFF),  # attention never stores its scores
    _flag("--mmap", own="--weights mapped"),
    _flag("--no-mmap", own="--weights copied"),
    _flag("--mlock", note="no memory is locked; --weights copied keeps the weights in memory of its own"),
    _flag(
        "-lm --load-mode",
        1,
        own={"auto": "--weights auto", "none": "--weights copied", "mmap": "--weights mapped"},
    ),
    _flag("-dio --direct-io -ndio --no-direct-io", note="files are mapped; --weights copied reads them once"),
    _flag("--repack -nr --no-repack", note="--weights says whether copies are made: copied, or mapped"),
    _flag("-ngl --gpu-layers --n-gpu-layers", 1, note=_ONE_PROCESSOR, off="0", numbers="auto all"),
    _flag("-dev --device", 1, note=_ONE_PROCESSOR, off="none cpu"),
    _flag("-sm --split-mode", 1, note=_ONE_PROCESSOR, off="none"),
    _flag("-ts --tensor-split -mg --main-gpu", 1, note=_ONE_PROCESSOR, numbers=""),
    _flag("-ot --override-tensor", 1, note=_ONE_PROCESSOR),
    _flag("-cmoe --cpu-moe"),
    _flag("-ncmoe --n-cpu-moe", 1, numbers=""),
    _flag("-kvo --kv-offload --op-offload", note=_ONE_PROCESSOR),
    _flag("-nkvo --no-kv-offload --no-op-offload --no-host"),
    _flag("-fit --fit", choices=_ON_OFF, note=_ONE_PROCESSOR, off="off 0 false"),
    _flag("-fitt --fit-target -fitc --fit-ctx", 1, note=_ONE_PROCESSOR, numbers=""),
    _flag("--list-devices", refusal="clarion doctor says what was found on this machine"),
    _flag("--rpc", 1, refusal="several machines are not implemented yet"),
    _flag(
        "--numa",
        1,
        note="threads and weights are spread over NUMA nodes without it; clarion doctor shows how",
    ),
    _flag("--prio --prio-batch", 1, note="priorities are given with the system's nice", off="0", numbers=""),
    _flag("--poll --poll-batch", 1, note="threads wait as they always do", numbers=""),
    _flag("-C --cpu-mask -Cr --cpu-range -Cb --cpu-mask-batch -Crb --cpu-range-batch", 1, refusal=_TASKSET),
    _flag("--cpu-strict --cpu-strict-batch", 1, refusal=_TASKSET, off="0"),
    _flag("-hft --hf-token", 1, refusal=_TOKEN),
    _flag(
        "-dr --docker-repo", 1, refusal="-hf fetches from Hugging Face's hub, and -mu any file by its address"
    ),
    _flag("-cl --cache-list", refusal="clarion list shows the models on this machine"),
    _flag("--offline", refusal="HF_HUB_OFFLINE=1 in the environment; what is here is never asked for again"),
    _flag("--swa-full"),
    _flag("-dt --defrag-thold", 1, numbers=""),
    _flag("--rope-scaling --rope-scale --rope-freq-base --rope-freq-scale", 1, refusal=_FILE_DECIDES),
    _flag(
        "--yarn-orig-ctx --yarn-ext-factor --yarn-attn-factor --yarn-beta-slow --yarn-beta-fast",
        1,
        refusal=_FILE_DECIDES,
    ),
    _flag("-gan --grp-attn-n -gaw --grp-attn-w", 1, refusal=_FILE_DECIDES),
    _flag("--override-kv", 1, refusal="keys of a file cannot be replaced while it is read"),
    _flag("--check-tensors", refusal="clarion check MODEL looks through all of a file, and computes with it"),
    _flag("--lora --lora-scaled --control-vector --control-vector-scaled", 1, refusal=_ADAPTER),
    _flag("--control-vector-layer-range", 2, refusal=_ADAPTER),
    _flag("--warmup --no-warmup"),
    _flag("--log-disable --log-prefix --no-log-prefix --log-timestamps --no-log-timestamps"),
    _flag("--log-colors", choices=_ON_OFF),
    _flag("--log-file", 1, refusal="there is no log; errors go to standard error"),
    _flag("-lv --verbosity --log-verbosity", 1, note="there is no log to be more or less of"),
    _flag("--usage", own="--help"),
)

_RUN = (
    _flag("--predict --n-predict", 1, own="--max-tokens {}"),
    _flag("--max-new-tokens", 1, own="--max-tokens {}"),
    _flag("-s", 1, own="--seed {}"),
    _flag("--temperature", 1, own="--temp {}"),
    _flag("--typical-p", 1, own="--typical {}"),
    _flag("--repetition-penalty", 1, own="--repeat-penalty {}"),
    _flag("--dry-penalty-last-n", 1, own="--dry-window {}"),
    _flag("--dry-sequence-breaker", 1, own="--dry-breaker {}"),
    _flag("-r --reverse-prompt", 1, own="--stop {}"),
    _flag("--system-prompt", 1, own="--system {}"),
    _flag("-sysf --system-prompt-file", 1, refusal='use --system "$(cat FILE)"'),
    _flag("-bf --binary-file", 1, own="--file {}"),
    _flag("-no-cnv --no-conversation --no-cnv", own="--raw"),
    _flag(
        "-cnv --conversation -i --interactive -if --interactive-first -mli --multiline-input", refusal=_CHAT
    ),
    _flag("-ins --instruct --chatml", refusal=_CHAT),
    _flag("-st --single-turn"),
    _flag("--jinja"),
    _flag("--no-jinja", refusal="chat templates are always Jinja; --raw continues the text without one"),
    _flag("--chat-template-file", 1, own="--chat-template {}"),
    _flag(
        "-rea --reasoning",
        choices=_ON_OFF,
        refusal="use --chat-template-kwargs, as in --chat-template-kwargs '{\"enable_thinking\": false}'",
        off="auto",
    ),
    _flag(
        "--think --no-think",
        choices="true false high medium low",
        refusal="use --chat-template-kwargs, as in --chat-template-kwargs '{\"enable_thinking\": false}'",
    ),
    _flag(
        "--reasoning-effort",
        1,
        refusal='use --chat-template-kwargs, as in --chat-template-kwargs \'{"reasoning_effort": "low"}\'',
        off="default",
    ),
    _flag(
        "--reasoning-budget --reasoning-budget-message",
        1,
        refusal="budgets for thoughts are not implemented",
        off="-1",
    ),
    _flag("--reasoning-format", 1, note="thoughts are printed as the model writes them", off="none auto"),
    _flag("--hidethinking", refusal="thoughts are printed as the model writes them"),
    _flag("--no-display-prompt"),
    _flag("--display-prompt", note="the prompt is not repeated before the text"),
    _flag("--verbose-prompt", refusal="clarion tokenize shows a text as the model sees it"),
    _flag(
        "-sp --special", refusal="names of control tokens are not printed; --json lists the ids of all tokens"
    ),
    _flag("-co --color", choices=_ON_OFF, note="the text is not coloured", off="off auto 0 false"),
    _flag("--simple-io --nowordwrap"),
    _flag("-v --verbose --log-verbose --perf --show-timings", own="--stats"),
    _flag("--no-perf --no-show-timings"),
    _flag("--no-context-shift"),
    _flag("--context-shift", note=_NO_SHIFT),
    _flag("--keep", 1, note=_NO_SHIFT, off="0", numbers=""),
    _flag("-np --parallel", 1, note="run writes one text", off="1", numbers=""),
    _flag("-cb --cont-batching -nocb --no-cont-batching"),
    _flag("--in-prefix --in-suffix", 1, refusal="use --chat-template, or write the whole text and use --raw"),
    _flag("--in-prefix-bos", refusal="use --chat-template, or write the whole text and use --raw"),
    _flag("--skip-chat-parsing"),
    _flag("--mirostat", 1, refusal=_SAMPLER, off="0"),
    _flag("--mirostat-lr --mirostat-ent", 1, refusal=_SAMPLER),
    _flag("--xtc-probability --dynatemp-range", 1, refusal=_SAMPLER, off="0 0.0 0.00"),
    _flag("--xtc-threshold --dynatemp-exp", 1, refusal=_SAMPLER, off="1 1.0 0.1 0.10"),
    _flag("--top-nsigma --top-n-sigma --adaptive-target", 1, refusal=_SAMPLER, off="-1 -1.0 -1.00"),
    _flag("--adaptive-decay --tfs", 1, refusal=_SAMPLER, off="1 1.0"),
    _flag("--samplers --sampler-seq --sampling-seq", 1, refusal=_ORDER),
    _flag("-bs --backend-sampling", note=_ONE_PROCESSOR),
    _flag("--grammar --grammar-file -j --json-schema -jf --json-schema-file --format", 1, refusal=_GRAMMAR),
    _flag("-md --model-draft --spec-draft-model -hfd -hfrd --hf-repo-draft", 1, refusal=_DRAFT),
    _flag(
        "--draft --draft-n --draft-max --draft-min --draft-n-min --draft-p-min --draft-p-split",
        1,
        refusal=_DRAFT,
    ),
    _flag(
        "--spec-type --spec-draft-n-max --spec-draft-n-min -devd -ngld -td -tbd",
        1,
        refusal=_DRAFT,
        off="none",
    ),
    _flag("--spec-default", refusal=_DRAFT),
    _flag("-mm --mmproj -mmu --mmproj-url --image --audio --video", 1, refusal=_IMAGES),
    _flag("--no-mmproj"),
    _flag("--prompt-cache", 1, refusal="a prompt's cache cannot be kept in a file yet"),
    _flag("--prompt-cache-all --prompt-cache-ro", refusal="a prompt's cache cannot be kept in a file yet"),
    _flag("-o --output --output-file", 1, refusal="the text goes to standard output: > FILE"),
    _flag("--host --port --api-key -a --alias --server-base", 1, refusal=_SERVER),
    _flag("--keepalive", 1, note="the model is read anew each time, from the system's page cache"),
    _flag("--insecure", refusal="certificates are always checked; addresses may begin with http:"),
    _flag(
        "--completion-bash", refusal='eval "$(_CLARION_COMPLETE=bash_source clarion)" switches completion on'
    ),
    _flag("--version", refusal="clarion --version"),
)

_BENCH = (
    _flag("--n-prompt", 1, own="--prompt-tokens {}"),
    _flag("--n-gen", 1, own="--max-tokens {}"),
    _flag("--repetitions", 1, own="--rounds {}"),
    _flag("-o --output", 1, own={"json": "--json", "md": ""}),
    _flag("-oe --output-err", 1, refusal="the table goes to standard output, or with --json one object"),
    _flag(
        "-pg -d --n-depth", 1, refusal="prompt and generation are measured apart, each from an empty cache"
    ),
    _flag("-mmp --mmap", 1, note="the weights lie where they are by default"),
    _flag("-embd --embeddings", 1, refusal="speeds are those of texts that are written", off="0"),
    _flag("-nkvo --no-kv-offload -nopo --no-op-offload --no-host", 1),
    _flag("--delay", 1, note="rounds follow one another at once", off="0", numbers=""),
    _flag("-v --verbose --progress"),
)

# Of a conversation, after those of `run`, whose meaning they replace.
_TALK = (
    _flag("-cnv --conversation -i --interactive -if --interactive-first --jinja"),
    _flag("-mli --multiline-input", note="a line that ends in \\ goes on, and Alt-Enter begins another one"),
    _flag("-no-cnv --no-conversation --no-cnv", refusal="clarion run --raw continues a text"),
    _flag("-st --single-turn", refusal="clarion run MODEL -p TEXT answers one turn of chat"),
    _flag(
        "-p --prompt -f --file --in-file",
        1,
        refusal="messages are typed, or stand in the lines of standard input; clarion run answers one",
    ),
    _flag("--context-shift", own="--drop-oldest"),
)

# Of a server, after those of `run`, whose meaning they replace; the last ones are vLLM's and Ollama's.
_SERVE = (
    _flag(
        "-p --prompt -f --file --in-file -sys --system --system-prompt",
        1,
        refusal="requests bring their texts; clarion run answers one",
    ),
    _flag("-st --single-turn -cnv --conversation", refusal="conversations come as requests; or clarion chat"),
    _flag("--jinja -cb --cont-batching --no-prefill-assistant --prefill-assistant"),
    _flag("-nocb --no-cont-batching", note="texts always share steps; -np says how many do"),
    _flag("--reuse-port", note="one process answers all requests"),
    _flag("-to --timeout", 1, note="a client that does not read is left after a minute", numbers=""),
    _flag("--threads-http", 1, note="one thread answers all requests", numbers=""),
    _flag("-np --parallel --max-num-seqs", 1, own="--parallel {}"),
    _flag("--models-dir", 1, own="--models {}"),
    _flag("--models-max", 1, note="models are unloaded by bytes: --memory-bytes", numbers="", off="0"),
    _flag("--models-autoload --no-models-autoload", note="a model is loaded when it is asked for"),
    _flag("--models-preset", 1, refusal="name the models, or their folder with --models"),
    _flag("--sleep-idle-seconds", 1, own="--idle-seconds {}", off="-1"),
    _flag("-cram --cache-ram", 1, own="--cache-bytes {}MiB", off="-1"),
    _flag("--cache-reuse -ctxcp --ctx-checkpoints --swa-checkpoints -sps --slot-prompt-similarity", 1),
    _flag("--cache-prompt -kvu --kv-unified --cache-idle-slots"),
    _flag(
        "--no-cache-prompt --no-kv-unified --no-cache-idle-slots",
        note="what is known is never computed again",
    ),
    _flag("--slots --props --metrics --no-webui --no-ui"),
    _flag("--no-slots", note="GET /slots says no text of anybody's"),
    _flag("--webui --ui", note="there is no such page yet"),
    _flag("--path --api-prefix --webui-config --ui-config", 1, refusal="not implemented"),
    _flag(
        "--embedding --embeddings --rerank --reranking",
        note="every model has all endpoints that it can answer",
    ),
    _flag("--pooling", 1, note="vectors are pooled as the file says"),
    _flag("--reasoning-format", 1, note="reasoning stands in reasoning_content", off="auto deepseek"),
    _flag("--reasoning-budget", 1, refusal='requests say it, as in "thinking_budget": 500', off="-1"),
    _flag("-v --verbose --log-verbose", note="--log-text prints prompts and answers"),
    _flag("--perf --show-timings --no-perf --no-show-timings -sp --special"),
    _flag("-o --output --output-file", 1, refusal="answers go to who asked"),
    _flag("--keepalive", 1, note="--idle-seconds says after how long a model is unloaded"),
    _flag("--served-model-name", 1, own="--alias {}"),
    _flag("--max-model-len", 1, own="--context {}"),
    _flag("--ssl-certfile", 1, own="--tls-cert {}"),
    _flag("--ssl-keyfile", 1, own="--tls-key {}"),
    _flag("--gpu-memory-utilization -tp --tensor-parallel-size", 1, note=_ONE_PROCESSOR, numbers=""),
    _flag("--dtype", 1, note="weights are what the file has", off="auto"),
    _flag("--trust-remote-code --enable-prefix-caching"),
)

_EVAL = (
    _flag("-m --model", 1, own="{}"),
    _flag("-f --file", 1, own="--text {}"),
    _flag("--ppl-stride", 1, own="--stride {}"),
    _flag("--kl-divergence", refusal="use --reference MODEL: both models are computed in one go"),
    _flag(
        "--kl-divergence-base --save-all-logits",
        1,
        refusal="use --reference MODEL: both models are computed in one go, and no logits are kept",
    ),
    _flag("--ppl-output-type", 1, note="--json and --report hold the figures", off="0"),
    _flag(
        "--hellaswag --winogrande --multiple-choice",
        refusal="of tasks there are none yet: eval measures perplexity and divergence on a text",
    ),
    _flag("-v --verbose"),
)

_IMATRIX = (
    _flag(
        "-ofreq --output-frequency --save-frequency", 1, note="the file is written once, at the end", off="0"
    ),
    _flag("--output-format", 1, note="the file is GGUF", off="gguf"),
    _flag(
        "--chunk --from-chunk",
        1,
        refusal="a text is taken from its beginning; --chunks says how far",
        off="0",
    ),
    _flag("--no-ppl"),
    _flag("--parse-special", refusal="names of control tokens in a text are ordinary characters"),
    _flag("--show-statistics", refusal="clarion inspect FILE lists what is in the file"),
    _flag("-v --verbose"),
)
_QUANTIZE = (
    _flag("--tensor-type", 1, own="--tensor {}"),
    _flag("--output-tensor-type", 1, own="--tensor ^output\\.weight$={}"),
    _flag("--token-embedding-type", 1, own="--tensor ^token_embd\\.weight$={}"),
    _flag("--leave-output-tensor", refusal=r"use --tensor '^output\.weight$=F16'"),
    _flag("--pure", refusal="use --tensor '.=TYPE': all matrices get this format"),
    _flag(
        "--include-weights --exclude-weights",
        1,
        refusal="an importance matrix counts as a whole: make one of what it is to hold",
    ),
    _flag("--override-kv --prune-layers", 1, refusal="the model stays as it is: only formats change"),
    _flag("--dry-run", refusal="the file is written; --json says what it holds"),
)
_CONVERT = (
    _flag(
        "--outfile", 1, refusal="the file to write is the second word: clarion convert DIR_OR_REPO OUT.gguf"
    ),
    _flag("--outtype", 1, own="--type {}"),
    _flag("--remote", refusal="owner/name in the place of the folder is a repository of the hub"),
    _flag("--vocab-only --mmproj --bigendian --no-lazy", refusal="not implemented"),
)
_EMBED = (
    _flag("--embd-normalize", 1, own={"2": "", "-1": "--no-normalize"}),
    _flag(
        "--embd-output-format",
        1,
        refusal="each text has a line of JSON; --json prints one object, -o writes an array of numpy",
    ),
    _flag("--embd-separator", 1, refusal="each line of a file (-f) or of standard input is a text"),
    _flag("--cls-separator", 1, refusal="the file says what stands between a query and a document"),
    _flag("--embedding --embeddings"),
    _flag("--rerank --reranking", refusal="use clarion rerank MODEL QUERY DOCUMENT..."),
    _flag("--predict --n-predict", 1, note="no text is written", numbers=""),
    _flag("-v --verbose --no-perf"),
)
_NAMES = (
    _flag("-hf -hfr --hf-repo -mu --model-url -m --model", 1, own="{}"),
    _flag("-hft --hf-token", 1, refusal=_TOKEN),
    _flag("--insecure", refusal="certificates are always checked; addresses may begin with http:"),
)
_COMMANDS = {
    "pull": _NAMES,
    "embed": (*_MODEL, *_EMBED),
    "rerank": (*_MODEL, *_EMBED),
    "chat": (*_MODEL, *_RUN, *_TALK),
    "serve": (*_MODEL, *_RUN, *_SERVE),
    "run": (*_MODEL, *_RUN),
    "bench": (*_MODEL, *_BENCH),
    "eval": (*_MODEL, *_EVAL),
    "imatrix": (*_MODEL, *_IMATRIX),
    "check": _MODEL,
    "quantize": (*_QUANTIZE, *_HUBS),
    "convert": _CONVERT,
}


@cache
def flags(command: str) -> Mapping[str, Flag]:
    """The flags of others that a command knows, by name. Its own meaning of a name counts most."""
    return {name: flag for flag in _COMMANDS.get(command, _HUBS) for name in flag.names}
