"""What the tests share: worlds of their own, users, images, terminals, registries."""
