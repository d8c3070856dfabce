"""What regressions know of what they do not know."""
