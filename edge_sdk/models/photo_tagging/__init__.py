"""ResNet multi-label photo tagging."""
