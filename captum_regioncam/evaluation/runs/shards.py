"""Shards: parts of the photos for schedulers that start single processes, such as Slurm's arrays."""

from collections.abc import Sequence

from captum_regioncam.arguments import whole
from captum_regioncam.errors import Argument, ArgumentError
from captum_regioncam.evaluation.runs.record import MOST_SHARDS, Shard
from captum_regioncam.files.text import counted

__all__ = ["numbers_in"]


def numbers_in(shard: object, photos: int, batch: int) -> tuple[Shard | None, list[int]]:
    """Return a shard, checked, and the numbers of its photos. Each of n shards has every n-th group of photos.

    The groups of consecutive photos are the same as without shards, so that each photo is computed in the same batch.

    Args:
        shard: (i, n) for the i-th of n shards, counted from 1; None for all photos.
        photos: how many photos there are.
        batch: how many consecutive photos make a group.

    Raises:
        ArgumentError: ``shard`` is something else, or there are fewer groups than shards.
    """
    if shard is None:
        return None, list(range(photos))
    index, count = map(whole, shard) if isinstance(shard, Sequence) and len(shard) == 2 else (0, 0)
    if not 1 <= index <= count <= MOST_SHARDS:
        raise ArgumentError(
            Argument("shard", shard),
            f": expects (i, n) for the i-th of n shards, such as (3, 16) for the third of 16; n is at most "
            f"{MOST_SHARDS:,}.",
        )
    groups = -(-photos // batch)
    if count > groups:
        raise ArgumentError(
            Argument("shard", shard),
            f": {counted(photos, 'photo')} in batches of {batch} make only {counted(groups, 'shard')}. "
            "Use fewer shards.",
        )
    return (index, count), [number for number in range(photos) if number // batch % count == index - 1]
