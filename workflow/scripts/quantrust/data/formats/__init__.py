"""File formats of datasets, one module each, found by its name, which is the ``format`` of a dataset in the config.

A module defines ``FORMAT``, a `quantrust.data.format.Format`.
"""
