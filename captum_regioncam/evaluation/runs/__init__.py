"""Runs over many photos: shared among processes, resumed, recorded, reported."""
