"""The control plane's server side: fleet state in, Envoy configuration out over ADS.

`collect` reads the endpoints, `fleet.weights` turns what it read into weights, `resources` builds Envoy's
listener, routes, clusters and endpoints, `snapshot` is one consistent set of them, and `subscription` and
`server` bring it to every Envoy that asks. A part that is away (Redis, an endpoint, an Envoy) never stops
the others: the last good snapshot stays.
"""
