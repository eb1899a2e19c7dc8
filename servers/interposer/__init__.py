"""interposer: a task between a caller and its callee that passes messages on, or breaks them."""
