"""A model needs its weights, its KV cache, its workspace, and little else."""

from __future__ import annotations

import subprocess
import sys

ELSE = 100  # MB: the interpreter, numpy, the tokenizer

PROGRAM = """
import clarion
with clarion.load(threads=2) as model:
    model.generate([1] * 1000, max_tokens=1000, greedy=True, ignore_eos=True, detokenize=False)
    model.generate("Once upon a time", max_tokens=8)
    plan = model.program
    weights = sum(weight.n_bytes for weight in plan.weights)
    planned = weights + plan.arena_bytes + plan.state_bytes(plan.context)
# Of this program alone: getrusage() also counts what the process was before it became this one.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(planned, int(peak.split()[1]) * 1024)
"""


def test_peak_memory() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    planned, peak = map(int, done.stdout.split())
    assert peak <= planned + ELSE * 10**6, f"peak {peak / 1e6:.0f} MB, planned {planned / 1e6:.0f} MB"
