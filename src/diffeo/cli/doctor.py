"""`diffeo doctor`: what diffeo finds on this machine."""

import platform
import re
from importlib import metadata
from typing import Any

import click

from diffeo.cli.options import echo_json, json_option, threads_option
from diffeo.version import __version__

_NEEDED = "needed"


@click.command()
@json_option
@threads_option
def command(as_json: bool) -> None:
    """\b
    Example: diffeo doctor

    Say which versions, devices, threads and kernels are in use, and which optional packages are there.
    """
    found = findings()
    if as_json:
        echo_json(**found)
        return
    for name in ("diffeo", "python", "system", "threads", "kernels", "products"):
        click.echo(f"{name:<9} {found[name]}")
    click.echo(f"{'devices':<9} {', '.join(found['devices'])}")
    for group, packages in found["packages"].items():
        listed = ", ".join(f"{name} {version or '(missing)'}" for name, version in packages.items())
        click.echo(f"{group:<9} {listed}")


def findings() -> dict[str, Any]:
    """All that the command says, as one dictionary."""
    import torch

    from diffeo.kernels import in_use, products

    cards = [f"cuda:{place} {torch.cuda.get_device_name(place)}" for place in range(torch.cuda.device_count())]
    return {
        "diffeo": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "devices": ["cpu", *cards],
        "threads": torch.get_num_threads(),
        "kernels": in_use(),
        "products": products.in_use(),
        "packages": packages(),
    }


def packages() -> dict[str, dict[str, str | None]]:
    """The version (None: missing) of each package that diffeo needs, and of those of each optional group."""
    groups: dict[str, dict[str, str | None]] = {_NEEDED: {}}
    try:
        lines = metadata.requires("diffeo") or []
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        lines = ["torch", "numpy", "pyarrow"]
    for line in lines:
        name = re.match(r"[\w.-]+", line)
        extra = re.search(r"extra == ['\"]([\w.-]+)['\"]", line)
        if name and name[0] != "diffeo" and not (extra and extra[1] == "dev"):  # dev is the sum of test and lint
            groups.setdefault(extra[1] if extra else _NEEDED, {})[name[0]] = _version(name[0])
    return groups


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
