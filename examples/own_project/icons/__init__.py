"""A project of somebody else: it trains on icons, and knows nothing of mlfix-train but what each module imports."""
