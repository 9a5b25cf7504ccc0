"""Scores of methods, finished seeds or finished label maps on photos with masks or boxes."""
