"""The frontier that a mixture of formats was chosen from, as a table for people."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clarion.quantize.budget import Mixture

ROWS = 12  # of the frontier, beside the one that was chosen


def show(mixture: Mixture, budget: int) -> None:
    """Prints sizes, estimated divergences and formats, from the smallest mixture to the source itself."""
    from rich.console import Console
    from rich.table import Table

    from clarion.quantize.budget import size_text

    table = Table(title="Mixtures of formats, each the best of its size", title_justify="left")
    for head in ("file", "bits per weight", "estimated mean KLD", "matrices in each format"):
        table.add_column(head, justify="left" if head.startswith("matrices") else "right")
    rows = [(mixture.n_bytes, mixture.cost, [offer.format for offer in mixture.offers], True)]
    points = mixture.frontier.points
    formats = [offer.format for offer in mixture.frontier.start]
    wanted = {round(i * (len(points) - 1) / (ROWS - 1)) for i in range(ROWS)}
    for i, point in enumerate(points):
        if i:
            step = mixture.frontier.steps[i - 1]
            formats[step.matrix] = step.offer.format
        n_bytes = point.n_bytes + mixture.others
        if i in wanted and n_bytes != mixture.n_bytes:
            rows.append((n_bytes, point.cost, list(formats), False))
    for n_bytes, cost, names, chosen in sorted(rows, key=lambda row: row[:2]):
        counts = ", ".join(f"{n} {name}" for name, n in Counter(names).most_common())
        bits = f"{8 * n_bytes / mixture.n_weights:.2f}"
        mark = f"[bold]{size_text(n_bytes)}[/bold] ←" if chosen else f"{size_text(n_bytes)}  "
        table.add_row(mark, bits, f"{cost:.2e}", counts)
    Console().print(table)
    left = budget - mixture.n_bytes
    print(f"chosen for {size_text(budget)}: {mixture.n_bytes} bytes, {left} left")
