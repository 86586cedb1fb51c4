"""Figures, tables and pages from metrics, curves and scores."""
