"""The verbs that text has of its own: `parse`, `generate`, `show`, `train-prior`."""
