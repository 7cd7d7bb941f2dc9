"""Which drafts to verify and where to draft: what passes cost, what drafts yield, and the layout that pays best."""
