# A store that is older than what it describes: machines, networks and nodes that it does not know are kept.
start
create c1 np1=1
settle
stop
save-store
start
create c2 np1=1
pool c1 np1 3
settle
stop
restore-store
trace
start
wait 700
unknown
show c1
trace
