"""From a kernel to seconds, and from seconds to statistics."""
