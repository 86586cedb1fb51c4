"""What a study will take before any of it runs: its jobs, with bytes on disk and in memory, from configs alone."""
