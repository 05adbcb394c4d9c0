"""From a model's graph to the plan of what it computes, and to the program that a machine executes."""

from clarion.plan.compiler import compile
from clarion.plan.graph import Graph
from clarion.plan.hyperparameters import Hyperparameters
from clarion.plan.plan import Plan
from clarion.plan.program import Program
from clarion.plan.target import Target

__all__ = ["Graph", "Hyperparameters", "Plan", "Program", "Target", "compile"]
