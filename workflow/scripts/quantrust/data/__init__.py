"""Official file formats, item tables, splits and images."""
