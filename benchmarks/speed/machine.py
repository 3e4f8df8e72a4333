"""The machine and the versions that figures belong to."""

import datetime
import importlib.util
import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["circumstances", "there", "versions"]

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def there(library: str) -> bool:
    return library == "floor" or importlib.util.find_spec(library) is not None


def versions(library: str) -> dict[str, str]:
    """Of Python, torch, the library, and what it stands on."""
    library = library.split(",")[0]
    names = ["torch", *(["jax"] if library == "flowjax" else []), *([library] if library != "floor" else [])]
    found = {name: _version(name) for name in names}
    return {"python": platform.python_version(), **found}


def _version(name: str) -> str:
    if name == "diffeo":  # of the source tree, installed or not
        from diffeo.version import __version__

        return __version__
    if name == "torch":
        import torch

        return torch.__version__
    return metadata.version(name)


def circumstances(device: str) -> dict[str, Any]:
    """What every row of a process says of where and when it was measured."""
    import torch

    return {
        "threads": torch.get_num_threads(),
        "device": device,
        "machine": _described(device),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _described(device: str) -> dict[str, Any]:
    """Processor, cores, caches, system, and the kernels that diffeo uses there."""
    import torch

    from diffeo.cli.doctor import findings

    found = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "caches": _caches(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "kernels": findings()["kernels"],
    }
    return found | ({"card": torch.cuda.get_device_name()} if device == "cuda" else {})


def _processor() -> str:
    try:
        named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        named = None
    return named[1].strip() if named else platform.processor() or platform.machine()


def _caches() -> str:
    """Such as L1d 32K, L2 1024K."""
    found = []
    for place in sorted(CACHES.glob("index*")):
        level, kind, size = ((place / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            found.append(f"L{level}{'d' if kind == 'Data' else ''} {size}")
    return ", ".join(found)
