"""What is asked and how an answer is judged: one module per task."""
