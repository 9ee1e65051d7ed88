"""Detection: boxes, masks and classes of the objects in an image."""
