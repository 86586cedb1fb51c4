"""What a study consists of: its checked config, its jobs, and the names and paths of what they write. No torch."""
