"""What changes to a model or its plan would gain."""
