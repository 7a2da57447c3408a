"""Keys: virtual API keys, their limits and their life."""
