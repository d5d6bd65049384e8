"""Make a flow of your own: read pictures and labels, train a Glow on them, find its attribute directions."""
