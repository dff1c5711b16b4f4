"""What choices cost: estimates, measurements of a machine, and the table that keeps them."""
