"""The commands, one short file each: the only place that prints."""
