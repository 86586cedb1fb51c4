"""The artifacts of a study as files: written whole or not at all, and checked for changed bytes when they are read."""
