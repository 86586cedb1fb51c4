"""Walks: one module for each kind of method, with the record that methods of that kind end in."""
