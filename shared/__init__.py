"""The kernel: what every service is made of, and no business rule."""
