"""Rewards on trees: what is worth having in a tree beside its likelihood."""
