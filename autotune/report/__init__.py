"""One page that tells what was tuned, what it gained and how far to trust it."""
