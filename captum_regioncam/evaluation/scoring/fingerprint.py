"""A fingerprint of the files that were scored."""

import contextlib
import hashlib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["fingerprint"]


def fingerprint(files: Iterable[tuple[str, Path]]) -> str:
    """Return a hash of the sizes and times of files, so that a run is not resumed with other files.

    Args:
        files: the names of the photos, and the file of each. Those that are missing are left out.
    """
    digest = hashlib.sha256()
    for name, path in files:
        with contextlib.suppress(OSError):
            found = path.stat()
            digest.update(f"{name} {found.st_size} {found.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
