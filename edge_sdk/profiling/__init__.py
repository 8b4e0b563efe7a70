"""Measuring: runs a bundle on a device and turns what its runner says into a report."""
