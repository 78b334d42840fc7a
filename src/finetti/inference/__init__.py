"""How it is inferred: the inner step integrates the coefficients, the outer step explores theta."""
