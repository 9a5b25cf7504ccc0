"""Runs over many photos: shared among processes, resumed, recorded, reported.

A :class:`~captum_regioncam.evaluation.runs.job.Job` says what is done with each photo, and ``run`` does it. What is
done already is skipped (``Job.is_done``): results that a folder's record lists (``folder.py``, ``record.py``), or
photos whose counts were kept while they were counted (``progress.py``).
"""
