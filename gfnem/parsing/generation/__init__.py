"""Sentence and tree built together: samplers of sentences, and rewards that look at the words."""
