"""The figures of a study, a module and a function each; they read metrics, curves and other tables only."""
