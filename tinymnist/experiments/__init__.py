"""What to train: published experiments, default settings, figures."""
