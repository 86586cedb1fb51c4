"""Metrics, intervals, thresholds and mixtures."""
