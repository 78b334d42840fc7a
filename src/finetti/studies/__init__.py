"""Ready-made questions on top of the model: meta-analysis."""
