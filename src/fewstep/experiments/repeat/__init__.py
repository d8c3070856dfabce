"""One recipe with several training seeds."""
