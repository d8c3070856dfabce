"""What a start and the learner ask of a network: slots, heads, weights of rows."""
