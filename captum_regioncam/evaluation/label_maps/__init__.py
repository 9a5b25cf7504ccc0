"""Label maps: a class at each pixel, from a seed."""
