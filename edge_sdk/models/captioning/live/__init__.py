"""The live program: captions for a camera, a video or photos, by a compiled captioner on a device."""
