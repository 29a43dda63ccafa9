# While the store cannot be written, nothing is accepted; afterwards, everything goes on.
start
create c1 np1=1
settle
outage 0 1
pool c1 np1 3
wait 300
show c1
calm
settle
pool c1 np1 2
settle
show c1
operations
