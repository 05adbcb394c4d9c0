"""The operation table: every operation that a plan may hold, and what it means.

Each entry is a declaration (clarion/plan/operation.py explains its words) and a definition in a few lines of
an array module: with numpy in float64 it is what every machine is tested against, and the engine `exact`.
Operands are arrays [rows, width]; weights are arrays of their own shape; T, O and S are the batch's tokens,
wanted outputs and slots.
"""

from __future__ import annotations

from clarion.plan.operation import Operation
from clarion.plan.operations import attention, products, recurrent, rows
from clarion.plan.operations.common import Batch

OPERATIONS = {
    entry.name: entry
    for subject in (rows, products, attention, recurrent)
    for entry in vars(subject).values()
    if isinstance(entry, Operation)
}

__all__ = ["OPERATIONS", "Batch"]
