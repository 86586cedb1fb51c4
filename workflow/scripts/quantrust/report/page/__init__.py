"""The report's page: one HTML file with summary, decision table, charts, examples, checkpoints and provenance."""
