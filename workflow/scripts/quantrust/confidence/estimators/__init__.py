"""Confidence estimators that need no training, one module each; its name with hyphens is that of the estimator.

A module defines ``confidence()``, which returns an expression over the columns of a features file, larger where the
answer is more likely to be right; and ``IS_PROBABILITY``, whether all values lie in [0, 1], so that calibration errors
exist and the estimator can be calibrated.
"""
