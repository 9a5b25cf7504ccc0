"""Methods, or finished seeds, scored on photos with masks or boxes."""
