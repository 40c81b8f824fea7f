"""How a tree is built, step by step."""
