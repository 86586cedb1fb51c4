"""The synthetic world: scenes, questions, captions, datasets, models, their training and their stressed variants."""
