"""`kvpilot bench picker`: what steering costs, through a real Envoy, with everything it drags along.

Contract: the load and the upstreams are processes of their own and are not counted. The picker is the program
that `kvpilot up` runs, with Redis, access logs and fresh loads. Every figure compares arms that took turns in
the same Envoy within seconds: the picker, a bare echo of the same messages, and the same route without the
filter. CPU is the whole process's, from /proc. Medians over rounds, with the least and the most of them.
"""
