"""Bundles: a variant with processor, estimator and operating points, ready to answer or to abstain."""
