"""Family adapters, one module each, named like the `model_type` in the `config.json` of its models.

A module defines ``FAMILY``, an instance of a subclass of `quantrust.models.family.Family`. What several of them share
lies in the folder `shared`.
"""
