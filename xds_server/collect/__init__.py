"""How the fleet's state comes in: `scrape` reads how each endpoint of the settings is doing.

What an endpoint says is untrusted: sizes and times are bounded, and nonsense counts as a failed scrape.
"""
