"""Exact Bayesian posteriors, the yardsticks of learned ones."""
