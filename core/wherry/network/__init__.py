"""What a container sees of networks."""
