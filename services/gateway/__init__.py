"""The gateway: who is calling, what a call may cost, and the model routes themselves."""
