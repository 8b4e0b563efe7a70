"""Captions for images: an encoder, an LSTM with attention, searches, and measures."""
