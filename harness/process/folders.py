"""The folders that a run keeps files in: compile caches, and a private one that ends with it.

A temporary folder may be shared with other users, containers and hosts, whose process numbers mean nothing here. So a
run holds a lock in its private folder. A folder whose lock is free was left by a killed run, and is removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Final

from harness.process import machine_lock

#: Compile caches, by the variable that moves each one.
CACHE_VARIABLES: Final = {
    "NUMBA_CACHE_DIR": "numba",
    "JAX_COMPILATION_CACHE_DIR": "jax",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
}
#: Prefix of private folders.
PREFIX: Final = "bilinear-bench-"
#: File in a private folder whose lock its run holds.
LOCK: Final = "lock"
#: Bytes that are written to see whether a folder takes files.
PROBE_BYTES: Final = 2**18


class FolderError(Exception):
    """A folder that a run needs and cannot have. The message names the variable that chooses another."""


def cache_variables(cache: Path) -> dict[str, str]:
    """Return variables that put each compile cache into this folder, and make the folders.

    Raises:
        OSError: A folder cannot be made.
    """
    variables = {variable: str(cache / folder) for variable, folder in CACHE_VARIABLES.items()}
    for folder in variables.values():
        Path(folder).mkdir(parents=True, exist_ok=True)
    return variables


def usual_cache() -> Path:
    """Return the folder of compile caches: in the checkout, or in the user's cache folder for an installed package.

    Raises:
        RuntimeError: The user has no home.
    """
    checkout = Path(__file__).parent.parent.parent
    if (checkout / "pyproject.toml").is_file():
        return checkout / ".cache" / "compiled"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bilinear-bench"


def default_cache() -> Path | None:
    """Return the folder of compile caches; None if it takes no files, so that the caches have to be temporary."""
    return None if cache_fault() else usual_cache()


def cache_fault() -> str:
    """Return why the usual folder of compile caches takes no files, and the remedy; empty if it takes them."""
    try:
        cache = usual_cache()
    except RuntimeError:
        return "compile caches are temporary: this user has no home; set XDG_CACHE_HOME to a folder of yours"
    try:
        for folder in cache_variables(cache).values():
            _probe(Path(folder))
        if os.statvfs(cache).f_flag & os.ST_NOEXEC:
            raise OSError(errno.EACCES, "mounted noexec, so that nothing compiled runs from it")
    except OSError as error:
        return f"compile caches are temporary: {cache} takes no files ({error.strerror}); set XDG_CACHE_HOME, or HOME"
    return ""


def temporary_folder(needed_bytes: int = 0) -> Path:
    """Return the folder of temporary files.

    Args:
        needed_bytes: Room that a run needs at least, in bytes.

    Raises:
        FolderError: There is none, or it has less room.
    """
    try:
        folder = Path(tempfile.gettempdir())
        _probe(folder)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise FolderError(f"no temporary folder takes files ({error.strerror}): set TMPDIR to one that does") from None
    if free < needed_bytes:
        raise FolderError(
            f"the temporary folder {folder} has room for {free / 2**20:,.1f} MiB, "
            f"the results of these cases take {needed_bytes / 2**20:,.1f} MiB: set TMPDIR to another"
        )
    return folder


def make_private() -> tuple[Path, int | None]:
    """Make this run's private folder; return it, and the descriptor whose end releases its lock.

    It gets its name when its lock is held, so that no other run finds it without.

    Raises:
        FolderError: There is no temporary folder with room for it.
    """
    base = temporary_folder()
    unnamed = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=base))
    descriptor = machine_lock.opened(unnamed / LOCK)
    if descriptor is not None:
        machine_lock.locked(descriptor)
    return unnamed.rename(base / f"{PREFIX}{secrets.token_hex(8)}"), descriptor


def remove_leftovers(base: Path) -> None:
    """Delete private folders that this user's runs have left, killed with signal 9 for instance."""
    for folder in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid == os.getuid() and (folder / LOCK).is_file():
                with machine_lock.abandoned(folder / LOCK) as free:
                    if free:
                        shutil.rmtree(folder, ignore_errors=True)


def _probe(folder: Path) -> None:
    """Write a file into a folder, and delete it.

    Raises:
        OSError: The folder takes no files.
    """
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{PREFIX}") as file:
        file.write(bytes(PROBE_BYTES))
        file.flush()
