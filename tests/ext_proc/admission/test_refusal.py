from __future__ import annotations

import json

from ext_proc.admission.refusal import Refusal


def test_says_what_openai_and_anthropic_clients_look_for_and_nothing_of_the_tenant() -> None:
    for reason in ("saturated", "displaced", "objective", "budget"):
        refusal = Refusal(reason, 7, "llama", 0, tenant="team-a")
        told = json.loads(refusal.body())
        assert told["type"] == "error"
        assert told["error"]["type"] == "rate_limit_error"
        assert told["error"]["code"] in ("overloaded", "rate_limit_exceeded")
        assert "7 s" in told["error"]["message"]
        assert b"team-a" not in refusal.body()
        assert refusal.status == 429
