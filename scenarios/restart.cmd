# A service that stops and starts again touches nothing that runs.
start
create c1 np1=2
settle
trace
stop
wait 600
start
wait 30
trace
show c1
# Killed in the middle of a request, it goes on.
pool c1 np1 3
wait 1
kill
start
settle
show c1
operations
