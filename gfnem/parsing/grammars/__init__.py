"""Generative models of sentences with trees."""
