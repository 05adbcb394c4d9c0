"""Making models smaller: weights in fewer bits, and what that costs."""
