"""The figures of a report, one module each, which defines `draw` and `Settings`; they read tables alone."""
