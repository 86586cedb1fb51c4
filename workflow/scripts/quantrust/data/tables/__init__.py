"""Kinds of tables of scores, one module each, found by its name.

A module ends in ``TABLE``, a `quantrust.data.table.TableFormat`.
"""
