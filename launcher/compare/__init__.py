"""compare: one system file under each placement and each way of calling, and what each costs."""
