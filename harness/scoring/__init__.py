"""R² per factor, what else is scored, and the baselines beside it."""
