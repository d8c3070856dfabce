"""Files on disk: atomic writes, locks, the cache, downloads, safe unpickling."""
