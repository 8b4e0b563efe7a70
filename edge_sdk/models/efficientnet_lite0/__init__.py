"""EfficientNet-Lite0 with ImageNet weights."""
