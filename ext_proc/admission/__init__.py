"""Who is turned away, so that the others are answered in time: shedding, objectives, tenants' budgets.

Contract: plain synchronous code; requests, predictions and `now` in, a `Refusal` or nothing out; always the
same for a seed. With everything off nothing here is asked. No request waits for other replicas:
`Budgets` decides from tokens it was lent before, and `ext_proc.lender` fetches more in the background.
"""
