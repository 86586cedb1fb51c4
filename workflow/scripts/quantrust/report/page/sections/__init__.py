"""The sections of the page: their order, and a template each."""
