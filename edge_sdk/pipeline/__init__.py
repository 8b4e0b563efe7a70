"""The pipeline: a model and a target in, a bundle out."""
