"""The kernel's own migrations, run once for each service's schema."""
