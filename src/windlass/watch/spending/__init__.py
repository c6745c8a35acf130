"""How budgets burn down, when they will be spent, and whom limits turned away."""
