"""Imports of packages that are installed only with an extra of this package."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["extra"]


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Make imports that fail name the extra that they belong to.

    Raises:
        ImportError: an import failed; the message says what to install.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(f'this needs: pip install "captum_regioncam[{name}]" ({error}).') from error
    except RuntimeError as error:  # torchmetrics imports torchvision if it is installed
        if "torchvision::" not in str(error):
            raise
        raise ImportError(
            "this needs torchmetrics, which imports torchvision. The one that is installed belongs to another torch "
            f"({error}). Install the torchvision that matches this torch, or uninstall torchvision."
        ) from error
