"""What a trained run's adaptation does: codes before and after it, curvature and the reach of its steps."""
