"""Vision token compression: the tokens of an image encoder as a few that keep what they say."""
