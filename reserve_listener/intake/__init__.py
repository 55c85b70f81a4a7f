"""From a push to what the store keeps."""
