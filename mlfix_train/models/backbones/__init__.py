"""Torch modules from images to logits or features, apart from Lightning: a timm backbone, or ours, and a head."""
