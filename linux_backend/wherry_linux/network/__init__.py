"""Networks, as the kernel and its helpers make them."""
