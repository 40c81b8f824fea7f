"""Exact inference over trees: inside, best tree, marginals, drawing."""
