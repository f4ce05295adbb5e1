"""Training, in either framework: one loop, and a small trainer for each."""
