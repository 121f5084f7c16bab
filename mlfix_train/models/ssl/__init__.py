"""Self-supervised learning of image similarity: the sorting network, its loss, and its encoder and projector."""
