"""`clarion doctor`: what Clarion found on this machine."""

from __future__ import annotations

import click

from clarion.cli import options


@click.command()
@options.debug
def doctor() -> None:
    """Says which native module is used and why, and what the processor and the memory are."""
    import os
    import platform

    from clarion import __version__
    from clarion.devices import choices, choose, processor_name
    from clarion.devices.memory import caches, memory
    from clarion.devices.threads import cpu_quota, default_threads, physical_cores

    used = choose()
    print(f"clarion {__version__}, Python {platform.python_version()}, {platform.platform()}")
    print(f"processor: {processor_name()}")
    quota = cpu_quota()
    print(
        f"cores: {physical_cores()} physical, {len(os.sched_getaffinity(0))} processors usable of "
        f"{os.cpu_count()}, quota {'none' if quota is None else f'{quota:.2f}'}; "
        f"default threads: {default_threads()}"
    )
    for cache in caches():
        size = f"{cache.size // 1024:,} KiB"
        print(f"cache: L{cache.level} {cache.kind.lower()}, {size}, processors {cache.shared_by}")
    found = memory()
    print(f"memory: {found.total / 1e9:.1f} GB, {found.available / 1e9:.1f} GB available")
    wanted = os.environ.get("CLARION_ISA")
    reason = f"CLARION_ISA={wanted}" if wanted else "the best one that this processor can run"
    print(f"native module: {used.name}: {reason}")
    for choice in choices():
        if not choice.installed:
            state = "not part of this installation"
        elif choice.missing_features:
            state = "the processor lacks " + ", ".join(choice.missing_features)
        else:
            state = "usable"
        print(f"  {choice.name}: {state}")
