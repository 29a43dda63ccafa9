# An operation that is out of time fails and says where it stands; the cluster heals by itself, and the next one is accepted.
start
fail ensure-network 100
create c1 np1=1
wait 1230
operations
show c1
pool c1 np1 2
settle
show c1
operations
