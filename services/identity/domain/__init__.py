"""Identity's aggregates: a user, a session."""
