"""fewstep: optimisation-based meta-learning, as compositions of a start, a rule and a meta-gradient."""
