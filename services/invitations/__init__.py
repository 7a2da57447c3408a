"""Invitations: single-use, expiring offers to one user to set a password."""
