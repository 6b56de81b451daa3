"""Containers: what is asked of one, what is kept of one, where it is kept."""
