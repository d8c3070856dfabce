"""Trained learners as classifiers and regressors for examples of your own."""
