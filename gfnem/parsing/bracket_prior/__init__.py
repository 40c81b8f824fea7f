"""What the brackets of a treebank tell a grammar beside its text."""
