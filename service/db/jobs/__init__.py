"""Jobs in PostgreSQL: what is true of a job stands here; the queue only carries it.

`outbox` writes a job in the transaction that wants it done, `relay` hands it to the queue, `effects` ends it
in the transaction of its effect, `failures` ends it without one, `keeping` deletes and mends, `backlog`
counts. `admin` is what operators do; `control` what they have paused, which `pausing` follows in every
worker; `presence` which workers there are; `pressure` refuses new work when too much waits. `schedules`
enqueues by the clock, at the times that `timing` tells.
"""
