"""Trees as tensors, and as people read and write them."""
