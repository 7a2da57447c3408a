"""Identity: users, their roles, credentials and sessions, and the keys that seal what identifies a person."""
