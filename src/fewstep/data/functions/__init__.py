"""Families of functions to regress: sinusoids, sines or lines, oscillations."""
