"""Carries routing events between replicas of the picker, by one stream per model in the store.

`wire` is the layout of a batch, `clock` ties this process's clock to the store's, `outbox` holds what is to
be told, `hearing` applies what others told, `parking` keeps log entries whose placement is not heard of yet,
`presence` says who else is there, `copying` is what a new replica starts from: all without I/O. `link` is
the exchange of one model, and `replication` that of a whole picker.

No request ever waits for any of it. While the store is away the picker goes on alone; what it has to tell is
kept, up to a bound, and whoever missed something asks the others what is outstanding.
"""
