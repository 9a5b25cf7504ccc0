"""One forward pass over a network: its layers, its scores, and the gradients between them."""
