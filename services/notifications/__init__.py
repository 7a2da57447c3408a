"""Notifications: what people are told by mail, and what became of each mail."""
