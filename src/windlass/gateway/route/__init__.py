"""What the router sees of a call beside its words: the prompt's vector, what each model costs, what may be spent."""
