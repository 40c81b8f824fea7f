"""From files to sentences as tensors."""
