"""The image world: grids of discrete codes behind binary images."""
