# An API server that does not answer for a while delays what needs it, and only that.
start
create c1 np1=1
create c2 np1=1
settle
stall c1
pool c1 np1 2
pool c2 np1 2
wait 60
show c1
show c2
unstall c1
settle
show c1
operations
