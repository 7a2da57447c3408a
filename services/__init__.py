"""The services, a folder each; they meet only in each other's ``events`` and ``requests``."""
