"""Program → target files: plans, worker processes, converters, and readers of what they wrote."""
