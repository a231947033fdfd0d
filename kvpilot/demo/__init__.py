"""The demo: one multi-turn chat load, driven three times through Envoy under three ways of steering.

`workload` and `load` are pure: for a seed they always give the same conversations, as many as make the
slowest way of steering work hard and no more. `client` drives them and times what a client sees, `report`
turns that into figures. Every phase runs in a mesh of its own, started from nothing, so no phase profits
from another's caches, learned rates or ledger.
"""
