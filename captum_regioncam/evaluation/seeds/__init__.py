"""Seeds: a photo's maps, and the formats of the files that hold them, one module each. The files are always ``.npy``.

To add a format, write a module like :mod:`~captum_regioncam.evaluation.seeds.clip_es`, with two functions:

- ``pack(seed)`` returns what the file holds: an array, or a dict of texts, whole numbers, arrays and tensors.
- ``unpack(content, keys)`` returns the :class:`~captum_regioncam.evaluation.seeds.seed.Parts` of such a file, whose
  tensors have become arrays, or None if the content is not in this format. The content may come from any file: its
  arrays are views that may be larger than the file, so ``unpack`` neither copies nor converts them. ``load_seed`` does
  that, and checks every value. ``keys`` are the classes given to ``load_seed``, for formats that do not hold them.

Then add the module to ``FORMATS``, to ``NEED_PHOTOS`` if its files may lack the photo's size or class, and to
``SMALLER`` if its ``pack`` also takes ``dtype`` and ``high_res``, for files with ``high_res`` in float16 or without it.
``load_seed`` takes the first format that unpacks a file, so no two may recognise the same content. ``--format`` offers
it, too: describe it in that option's help, in ``save_seed`` and in ``docs/how-to/seeds.md``.
``tests/evaluation/seeds/test_seeds.py`` tests every format; say there how its pipeline reads it.
"""

from collections.abc import Mapping

__all__ = ["DTYPES", "FORMATS", "NEED_PHOTOS", "SMALLER"]

FORMATS: Mapping[str, str] = {
    "irn": f"{__name__}.irn",
    "psa": f"{__name__}.psa",
    "clip-es": f"{__name__}.clip_es",
    "wsol": f"{__name__}.wsol",
}
"""For each format's name, the module that packs and unpacks it. Modules are imported when they are used."""
NEED_PHOTOS = ("psa", "wsol")
"""Formats that do not always hold the photo's size or class."""
SMALLER = ("irn",)
"""Formats whose files may have ``high_res`` in float16, or not at all."""
DTYPES = ("float32", "float16")
"""The dtypes that ``high_res`` may have."""
