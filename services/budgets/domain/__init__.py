"""The rules of budgets: a scope's limit, its windows, what one call may hold. Rows in, rows or a refusal out."""
