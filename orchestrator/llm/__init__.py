"""Language models: from a GGUF file or a Hugging Face folder to one .pte that generates text."""
