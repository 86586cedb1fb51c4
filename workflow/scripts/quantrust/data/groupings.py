"""The groupings that questions tables have columns for; a file brings others (`quantrust.data.question_groups`)."""

GROUPINGS = ("answer_type", "question_kind")
"""Columns of questions tables and scores by which questions are grouped."""
KEYS = ("question_id", "image_id")
"""What a row of a file of groups is about: a question, or all questions about an image."""
