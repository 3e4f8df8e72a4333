"""Compiles the kernels when diffeo is installed, where there is a compiler; without one everything is as it was.

    python hatch_build.py        compile them again, after a change of a C file

DIFFEO_KERNELS=off leaves them out, CC names another compiler.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand
    BuildHookInterface = object

SOURCE = Path("src/diffeo/kernels/kernels.c")
LIBRARY = "libkernels.so"
FLAGS = ["-std=gnu11", "-O3", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math", "-w"]
SECONDS = 300


class CustomBuildHook(BuildHookInterface):
    """A wheel that holds the compiled kernels is one for this platform, and for every Python 3."""

    def initialize(self, version, build_data):
        if self.target_name != "wheel":
            return
        library = build(Path(self.root))
        if library is not None and version != "editable":
            build_data["artifacts"].append(f"/{library.relative_to(self.root).as_posix()}")
            build_data["pure_python"] = False
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform}"


def build(root):
    """The library made of the C files, beside them; None, and no library left there, where none can be made."""
    source = root / SOURCE
    library = source.with_name(LIBRARY)
    compiler = chosen()
    sources = b"".join(file.read_bytes() for file in sorted(source.parent.glob("*.[ch]")))
    mark = hashlib.sha256(sources).hexdigest()[:16]
    try:
        with tempfile.TemporaryDirectory(dir=source.parent, prefix=".build-") as folder:
            made = Path(folder) / LIBRARY
            for threads in (["-fopenmp"], []):
                if compiler and compiles(
                    [*compiler, *FLAGS, *threads, f'-DSOURCE="{mark}"', str(source), "-o", str(made), "-lm"]
                ):
                    os.replace(made, library)
                    return library
        library.unlink(missing_ok=True)
    except OSError:  # a folder that cannot be written in
        pass
    return None


def chosen():
    """The command that compiles C here, or nothing."""
    if os.environ.get("DIFFEO_KERNELS", "").lower() == "off" or sys.platform == "win32":
        return []
    named = shlex.split(os.environ.get("CC", ""))
    for command in [named, ["cc"], ["gcc"], ["clang"]]:
        if command and shutil.which(command[0]):
            return command
    return []


def compiles(command):
    try:
        return subprocess.run(command, capture_output=True, timeout=SECONDS).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    sys.exit(0 if build(here) else f"no kernels were made: {'no compiler' if not chosen() else 'it does not compile'}")
