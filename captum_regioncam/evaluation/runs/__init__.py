"""Runs over many photos: shared among processes, resumed, recorded, reported.

A :class:`~captum_regioncam.evaluation.runs.job.Job` says what is done with each photo, and ``run`` does it. Photos that
are done already are skipped (``Job.is_done``): those whose results a folder's record lists (``folder.py``,
``record.py``), or whose counts were saved (``progress.py``).
"""
