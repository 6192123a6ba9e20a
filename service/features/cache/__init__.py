"""What the operator may ask the cache over HTTP."""
