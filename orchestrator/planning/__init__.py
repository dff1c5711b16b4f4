"""From candidates and prices to a plan: the cost graph, pins, excludes, the solver's choice."""
