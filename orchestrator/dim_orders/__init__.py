"""The dim orders of images: which tensors are images, and passes that choose between them."""
