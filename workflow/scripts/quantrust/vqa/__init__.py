"""Questions tables, official file formats, answer scoring and the embedded datasets."""
