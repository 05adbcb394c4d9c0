"""This machine as plain values, for programs: what Clarion found, and what it measured."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from typing import Any

from clarion.host import choices, choose, module_sizes, processor_family, processor_name
from clarion.host.hierarchy import hierarchy
from clarion.host.memory import memory
from clarion.host.record import best_threads, stored
from clarion.host.threads import cpu_quota


def describe(isa: str | None = None) -> dict[str, Any]:
    """What `clarion doctor` prints.

    Raises:
        DeviceError: the processor lacks the instruction set.
    """
    from clarion import __version__

    used = choose(isa).name
    found, size = hierarchy(), memory()
    record, note = stored(used)
    return {
        "version": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor_name(),
        "module": used,
        "modules": [
            {
                "name": choice.name,
                "installed": choice.installed,
                "missing_features": list(choice.missing_features),
                "bytes": module_sizes(choice.name),
            }
            for choice in choices()
            if choice.family in (processor_family(), "any")
        ],
        "cores": len(found.cores),
        "processors": sorted(found.processors),
        "processors_of_the_machine": os.cpu_count(),
        "quota": cpu_quota(),
        "nodes": [{"number": node.number, "processors": sorted(node.processors)} for node in found.nodes],
        "caches": [asdict(cache) for cache in found.caches],
        "caches_from": found.caches_from,
        "memory": asdict(size),
        "huge_pages": None if found.huge_pages is None else asdict(found.huge_pages),
        "threads": best_threads(used),
        "record": None if record is None else asdict(record),
        "record_note": note,
    }
