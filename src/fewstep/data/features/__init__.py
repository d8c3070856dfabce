"""Stored features: reading, converting, normalising and describing them."""
