"""What of a host's surroundings its machine has: names, proxies, authorities."""
