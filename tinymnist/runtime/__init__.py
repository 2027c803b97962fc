"""The training of the lesson, made fast, resumable and distributed."""
