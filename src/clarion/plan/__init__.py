"""From a model's graph to the plan that the machine executes."""

from clarion.plan.compiler import compile
from clarion.plan.graph import Graph, Hyperparameters
from clarion.plan.plan import Plan

__all__ = ["Graph", "Hyperparameters", "Plan", "compile"]
