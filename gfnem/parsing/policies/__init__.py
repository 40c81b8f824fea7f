"""Samplers of trees."""
