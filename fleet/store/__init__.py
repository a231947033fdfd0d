"""Where fleet state is kept between processes: `base` is the contract, `redis` and `memory` keep it.

Records are annotations of endpoints that discovery already knows. A store never invents an endpoint,
never blocks a request, and translates its client's exceptions to `StoreError`.
"""
