"""Measures of predictive distributions, beside the exact Bayesian ones."""
