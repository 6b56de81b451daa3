"""Images: what containers are made of, how it comes and goes, and how it is kept."""
