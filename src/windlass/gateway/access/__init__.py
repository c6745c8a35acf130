"""Who may call, and how much they may use up: keys, scopes, budgets, rates, and the rows behind them."""
