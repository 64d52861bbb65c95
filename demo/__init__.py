"""The whole path on real images: train, prune inside ``fit``, convert, run through the delegate (``make demo``)."""
