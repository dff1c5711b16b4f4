"""Language models: from a GGUF file to one .pte that generates text."""
