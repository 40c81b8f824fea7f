"""Grammars whose rules are unknown too: an observation is a handful of sentences together."""
