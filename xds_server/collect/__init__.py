"""How the fleet's state comes in: `discovery` says which endpoints exist, `scrape` how each is doing.

What an endpoint says is untrusted: sizes and times are bounded, and nonsense counts as a failed scrape.
"""
