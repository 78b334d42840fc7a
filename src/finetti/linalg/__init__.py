"""Block elimination for many coefficients and few hyperparameters; knows nothing of models."""
