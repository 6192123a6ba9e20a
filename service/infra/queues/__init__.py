"""Job queues: one interface, one engine per technology, one runner around all of them."""
