"""Images in: from a name to a stream of batches on the device."""
