"""Several methods on the same tasks."""
