"""Text: where it comes from, how it is split, and how it becomes ids."""
