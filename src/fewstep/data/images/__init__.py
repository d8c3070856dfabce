"""Images: reading, decoding once, datasets by name, augmentation."""
