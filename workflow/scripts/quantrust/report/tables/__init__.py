"""The tables of a report, one module each: it defines `write`, and `Settings` where it is given any.

Every number stands there as the shortest text that reads back to the same float, so that a threshold taken from a table
answers what it answered in the study. Shares, risks, errors and differences are fractions; other units are in the names
of their columns, such as ``bytes_on_disk``.
"""
