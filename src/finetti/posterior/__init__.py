"""What was learned: the fit, its tables, draws and predictions."""
