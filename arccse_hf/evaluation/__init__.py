"""Evaluation: a task is sentences plus a score of their embeddings, in training and on the command line alike."""
