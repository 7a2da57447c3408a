"""Budgets: limits, windows, holds, workers, and the usage ledger."""
