"""Compiled programs, kept on disk from one start of a command to the next."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import platform
import time

import jax

_KEPT_DAYS = 60
_LEAST_COMPILE_S = 0.2  # what compiles sooner is not worth a file


def keep() -> pathlib.Path | None:
    """The folder in which programs that JAX compiles from now on are kept, and looked for; None: it cannot be made.

    It is `technogen/programs-CPU` in the user's cache folder ($XDG_CACHE_HOME, or ~/.cache), or what
    $JAX_COMPILATION_CACHE_DIR says. JAX finds a program by a hash of its code, JAX's version, the flags and the device; a file
    that cannot be read costs a warning, and the program is compiled. The folder may be deleted at any time.
    """
    if jax.config.jax_compilation_cache_dir:
        return pathlib.Path(jax.config.jax_compilation_cache_dir)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = pathlib.Path(cache) / "technogen" / f"programs-{_processor()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    for path in folder.glob("*-cache"):
        with contextlib.suppress(OSError):  # another process does the same
            if path.stat().st_mtime < time.time() - 86400 * _KEPT_DAYS:
                path.unlink()
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_COMPILE_S)
    return folder


def _processor() -> str:
    """A name for the kind of CPU: code for one may use what another lacks, and machines may share a home folder."""
    about = platform.machine() + platform.processor()
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        about += "".join(
            next((line for line in lines if line.startswith(word)), "") for word in ("model name", "flags")
        )
    return hashlib.sha256(about.encode()).hexdigest()[:12]
