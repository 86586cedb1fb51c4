"""Confidence estimators."""
