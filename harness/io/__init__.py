"""Bytes to disk and from servers: atomic writes, locks, downloads that resume, arrays larger than memory."""
