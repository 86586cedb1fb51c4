"""The artifacts of a study as files: written whole or not at all, and found damaged where a byte of them changed."""
