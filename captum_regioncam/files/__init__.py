"""Files in and out: read within bounds, written completely or not at all."""
