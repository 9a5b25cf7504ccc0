"""Seeds: a photo's maps, and the files that hold them."""
