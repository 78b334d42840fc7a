"""What is assumed: formula, priors, families, structures and the frozen model."""
