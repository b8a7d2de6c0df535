"""The cache of compiled programs on disk: a command that starts again need not compile again."""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import platform
import time

import jax

from technogen_jax.common import cache_folders

_KEPT_DAYS = 60  # chosen: programs that were written earlier are deleted
_LEAST_COMPILE_S = 0.2  # chosen: a program that compiles faster is not worth a file


def use_cache() -> pathlib.Path | None:
    """Makes JAX keep compiled programs in a folder.

    Returns the folder, None if it can't be created.

    The folder is $JAX_COMPILATION_CACHE_DIR, or `technogen/programs-CPU` in the user's cache folder
    ($XDG_CACHE_HOME, or ~/.cache). JAX finds a program by a hash of its code, the version of JAX,
    the flags and the device. For a damaged file it prints a warning and compiles the program. The
    folder may be deleted at any time.
    """
    if jax.config.jax_compilation_cache_dir:
        return pathlib.Path(jax.config.jax_compilation_cache_dir)
    cache = cache_folders.user_cache_folder()
    if cache is None:
        return None
    folder = cache / f"programs-{_processor()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    for path in folder.glob("*-cache"):
        with contextlib.suppress(OSError):  # another process may delete it at the same time
            if path.stat().st_mtime < time.time() - 86400 * _KEPT_DAYS:
                path.unlink()
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_COMPILE_S)
    return folder


def _processor() -> str:
    """Returns a name of the kind of CPU: machines that share a home folder may differ in it."""
    about = platform.machine() + platform.processor()
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        about += "".join(
            next((line for line in lines if line.startswith(word)), "") for word in ("model name", "flags")
        )
    return hashlib.sha256(about.encode()).hexdigest()[:12]
